"""Makes a hand-written kernel live under jax.vmap and under a mesh.

A custom call is opaque to both: jax.vmap would refuse it, and the partitioner would gather its operands onto every device.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def over_batch(fn: Callable[..., Sequence[jax.Array]], shared: int = 0, summed: Sequence[int] = ()) -> Callable:
    """`fn`, which treats each element of its arrays' first axis by itself, for batches that are mapped over or sharded.

    Under jax.vmap the mapped axis joins the first one, so that there is still one launch. Under a mesh each device runs `fn`
    on the part of the batch it holds.

    Args:
      fn: from arrays to a sequence of arrays.
      shared: how many of the last arguments have no batch axis (weights): every device needs all of them.
      summed: the results that have no batch axis and are sums over the batch: reduced across the mesh. With any, a mapped
        axis is looped over instead.
    """

    def partitioned(*arrays):
        return _partitioned(fn, len(arrays) - shared, len(arrays), frozenset(summed))(*arrays)

    mapped = jax.custom_batching.custom_vmap(lambda *arrays: list(partitioned(*arrays)))

    @mapped.def_vmap
    def _(axis_size, in_batched, *arrays):
        batched = len(arrays) - shared
        if summed or any(in_batched[batched:]):
            rows = [i for i, is_batched in enumerate(in_batched) if is_batched]

            def one(parts):
                filled = list(arrays)
                for i, part in zip(rows, parts, strict=True):
                    filled[i] = part
                return mapped(*filled)

            out = jax.lax.map(one, [arrays[i] for i in rows])
            return out, [True] * len(out)
        joined = []
        for array, is_batched in zip(arrays[:batched], in_batched[:batched], strict=True):
            array = array if is_batched else jnp.broadcast_to(array, (axis_size, *array.shape))
            joined.append(array.reshape(axis_size * array.shape[1], *array.shape[2:]))
        out = mapped(*joined, *arrays[batched:])
        return [o.reshape(axis_size, o.shape[0] // axis_size, *o.shape[1:]) for o in out], [True] * len(out)

    return mapped


def _partitioned(fn: Callable, batched: int, total: int, summed: frozenset[int]) -> Callable:
    run = custom_partitioning(lambda *arrays: fn(*arrays))  # it looks at the signature, which a partial complicates

    def shardings(mesh: Mesh, arg_shapes, result_shapes):
        spec = arg_shapes[0].sharding.spec
        axis = spec[0] if len(spec) else None
        rows, whole = NamedSharding(mesh, PartitionSpec(axis)), NamedSharding(mesh, PartitionSpec())
        ins = tuple(rows if i < batched else whole for i in range(total))
        outs = [whole if i in summed else rows for i in range(len(jax.tree.leaves(result_shapes)))]
        return axis, ins, jax.tree.unflatten(jax.tree.structure(result_shapes), outs)

    def infer(mesh, arg_shapes, result_shapes):
        return shardings(mesh, arg_shapes, result_shapes)[2]

    def partition(mesh, arg_shapes, result_shapes):
        axis, ins, outs = shardings(mesh, arg_shapes, result_shapes)

        def on_shard(*arrays):
            results = fn(*arrays)
            if not summed or axis is None:
                return results
            return [jax.lax.psum(r, axis) if i in summed else r for i, r in enumerate(results)]

        return mesh, on_shard, outs, ins

    def rule(mesh, value_types, result_types):
        names = (f"d{i}" for i in itertools.count())

        def side(types, is_batched):
            dims = []
            for i, kind in enumerate(types):
                axes = [next(names) for _ in range(len(kind.shape))]
                dims.append(" ".join(["batch", *axes[1:]] if is_batched(i) else axes))
            return ", ".join(dims)

        inputs, results = side(value_types, lambda i: i < batched), side(result_types, lambda i: i not in summed)
        return f"{inputs} -> {results}"

    run.def_partition(partition, infer_sharding_from_operands=infer, sharding_rule=rule)
    return run
