"""Arrays whose types say how they are sharded over a mesh: those on Explicit axes (jax.make_mesh), and those inside
jax.shard_map.

With Explicit axes every reshape and product must state the sharding of its result. An operator states it once, for its results;
inside the operator the axes are Auto, and XLA infers the rest. Inside jax.shard_map a type says along which axes the values
vary, and functions with their own derivative must respect that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

BatchAxes = Any  # a prefix of the results' structure: at which axis a result has the batch, or None


def sharded_axes(arguments: Any) -> tuple[Any, Any]:
    """The mesh with Explicit axes that the arrays are on, and what the first array's batch is sharded over; or None."""
    for leaf in jax.tree.leaves(arguments):
        if not hasattr(leaf, "aval") and not isinstance(leaf, jax.Array):
            continue
        sharding = jax.typeof(leaf).sharding
        mesh = sharding.mesh
        if not mesh.empty and AxisType.Explicit in mesh.axis_types:
            return mesh, sharding.spec[0] if len(sharding.spec) else None
    return None, None


def call(fn: Callable[..., Any], batch_axes: BatchAxes, mesh: Any, batch: Any, args: Any, kwargs: Any) -> Any:
    """fn(*args, **kwargs) with Auto axes; results come back sharded over `batch` along their batch axes."""
    names = tuple(name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Explicit)
    leaves, structure = jax.tree.flatten((args, kwargs))
    arrays = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]

    def run(*given: jax.Array) -> Any:
        filled = list(leaves)
        for i, value in zip(arrays, given, strict=True):
            filled[i] = value
        args, kwargs = jax.tree.unflatten(structure, filled)
        return fn(*args, **kwargs)

    given = [leaves[i] for i in arrays]
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ())):
        results = jax.eval_shape(run, *(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in given))
    parts = math.prod(mesh.shape[name] for name in (batch if isinstance(batch, tuple) else (batch,)) if name is not None)

    def spec(axis: int | None, result: Any) -> PartitionSpec:
        if axis is None or batch is None or result.ndim <= axis or result.shape[axis] % parts:
            return PartitionSpec()
        return PartitionSpec(*[None] * axis, batch)

    def of(axes: Any, result: Any) -> Any:
        return jax.tree.map(lambda r: spec(axes, r), result)

    specs = (
        tuple(of(a, r) for a, r in zip(batch_axes, results, strict=True))
        if isinstance(batch_axes, tuple)
        else of(batch_axes, results)
    )
    with jax.sharding.use_abstract_mesh(mesh):  # the arrays may be on a mesh that jax.set_mesh was not told of
        return jax.sharding.auto_axes(run, axes=names, out_sharding=specs)(*given)


def varying_axes(*arrays: Any) -> tuple[str, ...]:
    """The axes of the surrounding shard_map along which any of the arrays varies."""
    kinds = (getattr(jax.typeof(array), "manual_axis_type", None) for array in arrays)
    return tuple(sorted({name for kind in kinds if kind is not None for name in kind.varying}))


def vary(array: Any, axes: tuple[str, ...]) -> Any:
    """The array as one that may vary along these axes; its gradient is summed over those that it did not vary along."""
    missing = tuple(name for name in axes if name not in varying_axes(array))
    return jax.lax.pcast(array, missing, to="varying") if missing else array


def example(shape: tuple[int, ...], like: jax.Array) -> jax.Array:
    """An array of `like`'s type but for its shape, where only the type counts (jax.linear_transpose)."""
    return vary(jnp.zeros(shape, like.dtype), varying_axes(like))
