"""Makes a hand-written kernel work under jax.vmap and on a mesh.

A custom call is opaque to both: jax.vmap would reject it, and the partitioner would gather its operands onto every device.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kernels.runtime import devices, dispatch


def over_batch(
    fn: Callable[..., Sequence[jax.Array]],
    shared: int = 0,
    whole: Sequence[int] = (),
    on_shard: Callable[..., Sequence[jax.Array]] | None = None,
    joined: bool = True,
    cooperative: bool = False,
) -> Callable:
    """`fn`, for batches (its arrays' first axis) that are mapped over or sharded.

    Under jax.vmap the mapped axis joins the first one, so that there is still one launch. Under a mesh each device works on the
    part of the batch it holds.

    Args:
      fn: from arrays to a sequence of arrays. It treats each element of the batch by itself, but for `whole`.
      shared: how many of the last arguments have no batch axis (weights): every device needs all of them.
      whole: the results that have no batch axis. With any, an axis mapped by jax.vmap is looped over.
      on_shard: on_shard(axis, *arrays) runs on each device instead of `fn` where the batch is sharded over mesh axis `axis`;
        it reduces `whole` over that axis. By default they are taken to be sums.
      joined: an axis mapped by jax.vmap may join the first one; else it is looped over.
      cooperative: `fn` has a barrier across its grid, which must not run beside the collectives of a program of several
        devices: there `on_shard` runs in its place where the batch is not sharded either, with axis None.
    """

    def sums_reduced(axis, *arrays):
        return [jax.lax.psum(r, axis) if i in whole else r for i, r in enumerate(fn(*arrays))]

    def partitioned(*arrays):
        counts = len(arrays) - shared, len(arrays)
        return _partitioned(fn, on_shard or sums_reduced, *counts, frozenset(whole), cooperative)(*arrays)

    mapped = jax.custom_batching.custom_vmap(lambda *arrays: list(partitioned(*arrays)))

    @mapped.def_vmap
    def _(axis_size, in_batched, *arrays):
        batched = len(arrays) - shared
        if axis_size == 0:  # nothing to launch
            kinds = [
                jax.ShapeDtypeStruct(a.shape[1:] if is_batched else a.shape, a.dtype)
                for a, is_batched in zip(arrays, in_batched, strict=True)
            ]
            out = [jnp.zeros((0, *kind.shape), kind.dtype) for kind in jax.eval_shape(fn, *kinds)]
            return out, [True] * len(out)
        if whole or not joined or any(in_batched[batched:]):
            out = _looped(mapped, in_batched, arrays)
            return out, [True] * len(out)
        merged = []
        for array, is_batched in zip(arrays[:batched], in_batched[:batched], strict=True):
            array = array if is_batched else jnp.broadcast_to(array, (axis_size, *array.shape))
            merged.append(array.reshape(axis_size * array.shape[1], *array.shape[2:]))
        out = mapped(*merged, *arrays[batched:])
        return [o.reshape(axis_size, o.shape[0] // axis_size, *o.shape[1:]) for o in out], [True] * len(out)

    return mapped


def _looped(fn: Callable, in_batched: Sequence[bool], arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """`fn` for one element of the mapped axis after another."""

    def one(parts):
        parts = iter(parts)
        return fn(*(next(parts) if is_batched else a for a, is_batched in zip(arrays, in_batched, strict=True)))

    return jax.lax.map(one, [a for a, is_batched in zip(arrays, in_batched, strict=True) if is_batched])


def _partitioned(
    fn: Callable, on_shard: Callable, batched: int, total: int, whole: frozenset[int], cooperative: bool
) -> Callable:
    run = custom_partitioning(lambda *arrays: fn(*arrays))  # it looks at the signature, which a partial complicates

    def shardings(mesh: Mesh, arg_shapes, result_shapes):
        spec = arg_shapes[0].sharding.spec
        axis = spec[0] if len(spec) else None
        rows, replicated = NamedSharding(mesh, PartitionSpec(axis)), NamedSharding(mesh, PartitionSpec())
        ins = tuple(rows if i < batched else replicated for i in range(total))
        outs = [replicated if i in whole else rows for i in range(len(jax.tree.leaves(result_shapes)))]
        return axis, ins, jax.tree.unflatten(jax.tree.structure(result_shapes), outs)

    def infer(mesh, arg_shapes, result_shapes):
        return shardings(mesh, arg_shapes, result_shapes)[2]

    def partition(mesh, arg_shapes, result_shapes):
        axis, ins, outs = shardings(mesh, arg_shapes, result_shapes)
        if mesh.size > 1 and devices.device().platform == "cpu":
            # There kernels run in a callback alone, which a partitioned program cannot hold.
            names = " and ".join(map(repr, dispatch.ON_HOST))
            raise dispatch.ImplementationError(
                f"implementation: {names} run in programs of one device, and this one has {mesh.size}; inside "
                'jax.shard_map they run on each, and "xla" runs everywhere'
            )
        alone = axis is None and not (cooperative and mesh.size > 1)
        return mesh, fn if alone else (lambda *arrays: on_shard(axis, *arrays)), outs, ins

    def rule(mesh, value_types, result_types):
        names = (f"d{i}" for i in itertools.count())

        def side(types, is_batched):
            dims = []
            for i, kind in enumerate(types):
                axes = [next(names) for _ in range(len(kind.shape))]
                dims.append(" ".join(["batch", *axes[1:]] if is_batched(i) else axes))
            return ", ".join(dims)

        return f"{side(value_types, lambda i: i < batched)} -> {side(result_types, lambda i: i not in whole)}"

    run.def_partition(partition, infer_sharding_from_operands=infer, sharding_rule=rule)
    return run
