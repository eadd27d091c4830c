"""How a persistent kernel divides a recurrent layer or a stack into blocks, and whether all of them are resident at the same
time.

A block holds the recurrent weights of a few units for the whole sequence, so that a step reads only the state; in every step it
waits for the other blocks of its group at a barrier. The barrier opens only if every block of the grid runs, so the grid is
limited to one block per multiprocessor, and `launches.RESERVED` of those are left to whatever else runs.
`kernels.verification.residency` compares that with the compiled kernel.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from kernels.recurrent.cells import CELLS, CellWeights
from kernels.runtime import checks, devices, precision
from kernels.runtime.launches import usable_cores
from kernels.runtime.sizes import cdiv, power_of_two
from kernels.runtime.tuning import tuned_config


@dataclasses.dataclass(frozen=True)
class Config:
    batch: int  # sequences per block
    num_warps: int


CANDIDATES = tuple(Config(batch, warps) for batch in (64, 32, 16) for warps in (4, 8))
XLA_CANDIDATES = ({"unroll": 1}, {"unroll": 8})  # steps in each turn of XLA's loop
ROWS = 64  # of the recurrent weights that one block multiplies: a warp group's matrix instruction takes 64
SHARED_MEMORY_SPARE = 8192  # bytes for what the compiler needs besides the operands


@dataclasses.dataclass(frozen=True)
class Plan:
    """`units` hidden units and `batch` sequences per block; a grid of `grid` blocks, of which `group` share a barrier."""

    units: int
    batch: int
    padded_hidden: int
    grid: tuple[int, int, int]
    group: int
    num_warps: int


def plan(gates: int, hidden: int, batch: int, directions: int, item_size: int, layers: int = 1) -> Plan | str:
    """How to cut a layer of this size, or a wavefront of several, or why it does not fit.

    Args:
      gates: 1, 3 or 4.
      item_size: bytes per value of weights and state in the products.
      layers: of one direction, where there is more than one.
    """
    here = devices.device()
    plan_for = here if here.cores else devices.H200  # the interpreter's grid is that of an H200
    cores = usable_cores(plan_for.cores)
    memory = plan_for.shared_memory - SHARED_MEMORY_SPARE
    padded = max(16, power_of_two(hidden))
    depth = padded if layers == 1 else 2 * padded  # of a step's product: the state, and the layer below's
    units = ROWS // (1 if gates == 1 else 4)
    blocks = cdiv(hidden, units)
    measured = tuned_config("recurrent", f"{gates}x{hidden}x{batch}x{directions}x{item_size}x{layers}")
    for size in (64, 32, 16) if measured is None else (measured["batch"],):
        if size > max(16, power_of_two(batch)):
            continue
        grid = (blocks, cdiv(batch, size), directions * layers)
        # The weights' slice and what it multiplies; a float32 is held as two numbers in tf32.
        held = (ROWS + size) * depth * (8 if item_size == 4 else item_size)
        # Beyond these sizes the compiler runs out of registers and spills.
        registers_last = item_size == 2 or (size == 16 and depth <= (128 if gates == 3 else 256))
        if math.prod(grid) <= cores and held <= memory and registers_last:
            num_warps = 8 if depth > 256 or size > 32 or item_size == 4 else 4
            if measured is not None:
                num_warps = measured["num_warps"]
            return Plan(units, size, padded, grid, blocks * layers, num_warps)
    return (
        f"hidden size {hidden}, batch {batch}, {directions} direction(s), {item_size} bytes a value do not fit on "
        f"{cores} multiprocessors at once"
    )


def layers_at_once(cell: str, batch: int, layers: Sequence[tuple[CellWeights, ...]], item_size: int) -> int:
    """How many layers of a stack run as one wavefront: as many as are resident together, 1 where no two of them are.

    A layer above one with two directions needs that layer's last step before its own first: there is no wavefront.
    """
    gates, hidden = CELLS[cell].gates, layers[0][0].w_h.shape[0]
    if len(layers[0]) == 2:
        return 1
    fits = lambda count: isinstance(plan(gates, hidden, batch, 1, item_size, count), Plan)
    return next((count for count in range(len(layers), 1, -1) if fits(count)), 1)


def shape_class(cell: str, x: jax.Array, layers: Sequence[tuple[CellWeights, ...]]) -> str:
    """Key of the measured choice: "lstm 32x128x256:bfloat16 3x2x512", where x is [32, 128, 256], and there are three layers of
    two directions of 512 units."""
    stack = "x".join(map(str, (len(layers), len(layers[0]), layers[0][0].w_h.shape[-1] // CELLS[cell].gates)))
    return f"{cell} {'x'.join(map(str, x.shape))}:{x.dtype} {stack}"


def reason(cell: str, x: jax.Array, layers: Sequence[tuple[CellWeights, ...]]) -> str | None:
    """Why the kernels do not take a stack of layers; None if they do."""
    weights = layers[0][0]
    if weights.w_p is not None:
        return "it has no projection"
    if weights.peepholes is not None:
        return "it has no peepholes"
    if cell == "gru_reset_before":
        return "it has the reset gate behind the recurrent product, and reset_after=False asks for it before"
    if not isinstance(x.shape[0], int):
        return f"its grid depends on the batch size, which is the symbol {x.shape[0]} here"
    asked = precision.asked()
    if x.dtype == jnp.float32 and asked not in (*precision.LEVELS, "TF32_TF32_F32_X3"):
        return f"jax.default_matmul_precision asks for {asked}, and of float32 it does TF32_TF32_F32_X3"
    if x.dtype != jnp.float32 and (unanswered := precision.reason(x.dtype, ())) is not None:
        return unanswered
    if checks.exceeds((x.shape[1] + len(layers)) * (devices.device().cores or 132), 2**31 - 1):
        return f"its barrier counts in 32 bits, and {x.shape[1]} steps are too many for it"
    found = plan(CELLS[cell].gates, weights.w_h.shape[0], x.shape[0], len(layers[0]), x.dtype.itemsize)
    return found if isinstance(found, str) else None
