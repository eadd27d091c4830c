"""Devices as a mesh: batches are split over "data", large parameters over "model", everything else is on every device."""

from __future__ import annotations

import math
import re
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.errors import UserError

AXES = ("data", "model")
# A parameter smaller than this many values is kept whole on every device: splitting it saves nothing.
SMALLEST_SPLIT = 2**14


def make_mesh(spec: str) -> Mesh:
    """The mesh for "data=4,model=2"; one axis may be -1, all devices that the other leaves.

    Of several processes each has as many of the devices as the others.

    Raises:
      UserError: another form, another axis, more devices than there are, or a number that the processes cannot share.
    """
    sizes = dict.fromkeys(AXES, 1)
    given: set[str] = set()
    for part in spec.split(","):
        name, _, size = (text.strip() for text in part.partition("="))
        if name not in AXES or name in given or not re.fullmatch("-1|[1-9][0-9]{0,8}", size):
            raise UserError(
                f"mesh: {spec!r:.80} given, it must read like data=4,model=2 (axes {' and '.join(AXES)}, once; -1: the rest)"
            )
        given.add(name)
        sizes[name] = int(size)
    known = math.prod(size for size in sizes.values() if size > 0)
    free = [name for name, size in sizes.items() if size < 0]
    count = jax.device_count()
    if len(free) > 1 or count % known or (not free and known > count):
        raise UserError(f"mesh: {spec!r} given, {count} device{'s are' if count > 1 else ' is'} there to be arranged")
    for name in free:
        sizes[name] = count // known
    shape, processes = tuple(sizes[name] for name in AXES), jax.process_count()
    each, rest = divmod(math.prod(shape), processes)
    by_process: dict[int, list[jax.Device]] = {index: [] for index in range(processes)}
    for device in jax.devices():
        by_process[device.process_index].append(device)
    fewest = min(map(len, by_process.values()))
    if rest or each > fewest:
        raise UserError(f"mesh: {spec!r} given, {processes} processes share it: a multiple of that, at most {fewest} of each")
    devices = [device for index in range(processes) for device in by_process[index][:each]]
    return Mesh(np.asarray(devices).reshape(shape), AXES)


def part(mesh: Mesh) -> tuple[int, int]:
    """(index, count): of each batch's count equal parts in order, the index-th is what this process's devices need.

    Processes that share a part, as where "model" spans them, each read it.

    Raises:
      UserError: the processes' devices do not make equal parts.
    """
    here = jax.process_index()
    rows = [row for row, devices in enumerate(mesh.devices) if any(device.process_index == here for device in devices)]
    if rows != list(range(rows[0], rows[-1] + 1)) or len(mesh.devices) % len(rows) or rows[0] % len(rows):
        raise UserError(
            f"mesh: data={len(mesh.devices)} given, {jax.process_count()} processes cannot each take an equal part of it"
        )
    return rows[0] // len(rows), len(mesh.devices) // len(rows)


def describe(mesh: Mesh) -> dict[str, int]:
    """The mesh as a checkpoint notes it."""
    return {**{name: int(size) for name, size in mesh.shape.items()}, "processes": jax.process_count()}


def compare(before: dict[str, int] | None, now: dict[str, int]) -> str:
    """One line on devices that differ from those that a run was on before; empty where they do not."""
    if before is None or before == now:
        return ""
    words = lambda where: (
        ", ".join(f"{axis}={where.get(axis)}" for axis in AXES)
        + f" in {where.get('processes')} process{'es' if where.get('processes') != 1 else ''}"
    )
    return f"on {words(now)}, {words(before)} before: the same up to the rounding of sums in another order"


def split_over(mesh: Mesh, batch: dict[str, jax.Array], size: int) -> dict[str, jax.Array]:
    """Within a jitted function: whatever a task added to a batch of `size` examples, such as a GAN's latent vectors, is split
    as the batch is; else every device might compute all of it."""
    if mesh.size == 1:
        return batch
    sharding = batch_sharding(mesh)
    split = lambda array: (
        jax.lax.with_sharding_constraint(array, sharding)
        if array.ndim and len(array) == size and not jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)
        else array
    )
    return {name: split(array) for name, array in batch.items()}


def batch_sharding(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec("data"))


def state_shardings(mesh: Mesh, leaves: list[jax.Array]) -> list[NamedSharding]:
    """Where each array of the state lives: large ones are split over "model" along their last axis that divides evenly."""
    parts = mesh.shape["model"]

    def one(leaf: jax.Array) -> NamedSharding:
        spec: list[str | None] = [None] * leaf.ndim
        splittable = [axis for axis in range(leaf.ndim) if leaf.shape[axis] % parts == 0 and leaf.shape[axis] >= parts]
        if parts > 1 and leaf.size >= SMALLEST_SPLIT and leaf.ndim > 1 and splittable:
            spec[splittable[-1]] = "model"
        return NamedSharding(mesh, PartitionSpec(*spec))

    return [one(leaf) for leaf in leaves]


def place(leaves: list[jax.Array], shardings: list[NamedSharding]) -> list[jax.Array]:
    """The same values, laid out over the mesh; every process holds the whole value beforehand."""
    if jax.process_count() == 1:
        return jax.device_put(leaves, shardings)
    return [_from_whole(leaf, sharding) for leaf, sharding in zip(leaves, shardings, strict=True)]


def _from_whole(leaf: Any, sharding: NamedSharding) -> jax.Array:
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_from_whole(jax.random.key_data(leaf), NamedSharding(sharding.mesh, PartitionSpec())))
    value = np.asarray(leaf)
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def place_batch(batch: dict[str, np.ndarray], sharding: NamedSharding, *, whole: bool) -> dict[str, jax.Array]:
    """A host batch on the devices. `whole`: each process holds all of it; otherwise each holds its own part."""
    if sharding.mesh.size == 1 and jax.process_count() == 1 and sharding.mesh.devices.flat[0].platform == "cpu":
        return batch  # type: ignore[return-value]  # nothing to transfer: a jitted function takes it as it is
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    if whole:
        return {name: _from_whole(array, sharding) for name, array in batch.items()}
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def to_host(leaf: jax.Array) -> np.ndarray:
    """The whole value, wherever its parts are."""
    if leaf.is_fully_addressable or leaf.is_fully_replicated:
        return np.asarray(leaf)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
