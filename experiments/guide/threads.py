"""Thousands of threads, in warps, in blocks, in a grid.

A CPU has a few cores that each run one or two threads fast: large caches and prediction keep a thread from waiting. A
GPU has many simple units and lets a thread wait, because others are ready to run. The units of work, from small to
large:

A *thread* has its own registers. 32 of them are a *warp*, which fetches one instruction for all. Warps of one *block*
(in Triton: a program, of `num_warps` warps) run on one multiprocessor, share its shared memory and can wait for each
other at a barrier. The blocks of a *grid* run in any order, on all multiprocessors; within a launch they can
synchronize only through atomics in device memory; a new launch waits for all of them. An H200 has 132 multiprocessors,
which hold 2,048 threads each.

It pays to give the grid at least one block per multiprocessor, and to reduce within a block before issuing an atomic:
the threads of a warp exchange registers and the warps shared memory, as `tl.sum` does. A barrier does not pay where no
thread reads what another wrote. And work in which each step needs the previous one cannot use threads at all.

Sources: NVIDIA, CUDA Programming Guide v13, "Programming Model", "Writing SIMT Kernels" and "SIMT Execution Model";
NVIDIA, Hopper Tuning Guide, "Occupancy"; Tillet, Kung and Cox 2019, Triton (MAPL).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import triton
import triton.language as tl

from experiments.guide import executed
from experiments.guide.topic import Case, Counted, Topic, normal, variants
from kernels.runtime import gpus
from kernels.runtime.launch import launch, like
from kernels.runtime.sizes import cdiv

BLOCK, WARPS = 1024, 4


@triton.jit
def stride_kernel(x, y, SIZE: tl.constexpr, BLOCKS: tl.constexpr, BLOCK: tl.constexpr):
    """y = 2 x + 1 by BLOCKS blocks, each of which takes every BLOCKS-th tile."""
    for tile in range(tl.program_id(0), tl.cdiv(SIZE, BLOCK), BLOCKS):
        i = tile * BLOCK + tl.arange(0, BLOCK)
        tl.store(y + i, tl.load(x + i, mask=i < SIZE) * 2.0 + 1.0, mask=i < SIZE)


@triton.jit
def sum_kernel(x, y, SIZE: tl.constexpr, TOGETHER: tl.constexpr, BLOCK: tl.constexpr):
    """y[0] += the sum of x: each element by itself, or the block's sum (TOGETHER)."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + i, mask=i < SIZE, other=0.0)
    if TOGETHER:
        tl.atomic_add(y, tl.sum(value, 0))
    else:
        tl.atomic_add(y + i * 0, value, mask=i < SIZE)


@triton.jit
def wait_kernel(x, y, SIZE: tl.constexpr, WAIT: tl.constexpr, BLOCK: tl.constexpr):
    """y = 2 x + 1; WAIT puts a barrier of the block between reading and writing."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + i, mask=i < SIZE, other=0.0) * 2.0 + 1.0
    if WAIT:
        tl.debug_barrier()
    tl.store(y + i, value, mask=i < SIZE)


def stride(x, *, implementation, blocks):
    of = {"SIZE": x.size, "BLOCKS": blocks, "BLOCK": BLOCK, "grid": (blocks,), "implementation": implementation}
    return launch(stride_kernel, x, outputs=[like(x)], **of)


def add_up(x, *, implementation, together):
    of = {"SIZE": x.size, "TOGETHER": together, "BLOCK": BLOCK, "grid": (cdiv(x.size, BLOCK),)}
    return launch(sum_kernel, x, outputs=[like(x, (1,))], zeroed_outputs=(0,), implementation=implementation, **of)


def wait(x, *, implementation, barrier):
    of = {"SIZE": x.size, "WAIT": barrier, "BLOCK": BLOCK, "grid": (cdiv(x.size, BLOCK),)}
    return launch(wait_kernel, x, outputs=[like(x)], implementation=implementation, **of)


def one_by_one(x, *, at_once):
    """The sum of x: by a loop over its elements, or as one operation."""
    x = jnp.asarray(x)
    if at_once:
        return jnp.sum(x)
    return jax.lax.fori_loop(0, x.size, lambda i, total: total + x[i], jnp.float32(0))


def busy(counted: Counted, blocks: int) -> Mapping[str, float]:
    return {"busy_multiprocessors": min(blocks, gpus.find(counted.kind).cores)}


def picture(figure: Any, row: Mapping[str, Any]) -> None:
    """A CPU's cores beside a GPU's multiprocessors; one of these, one of its blocks, one warp."""
    from matplotlib.patches import Rectangle

    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(0, 100)
    axes.set_ylim(-6, 40)

    def boxes(left: float, bottom: float, wide: float, high: float, across: int, up: int, colour: str) -> None:
        w, h = wide / across, high / up
        for n in range(across * up):
            at = (left + n % across * w, bottom + n // across * h)
            axes.add_patch(Rectangle(at, 0.86 * w, 0.86 * h, facecolor=colour, edgecolor="none"))

    def title(left: float, text: str) -> None:
        axes.text(left, 34, text, fontsize=9, va="bottom")

    cores = gpus.GPUS["h200"].cores
    parts = (
        (0, 14, 2, 1, "#8c8c8c", "CPU\na few fast cores"),
        (20, 22, 12, cores // 12, "#2f6db5", f"GPU: a grid's blocks go to\n{cores} multiprocessors"),
        (48, 14, 1, WARPS, "#5a91cf", f"a block: {WARPS} warps\nwith shared memory\nand barriers"),
        (68, 30, 32, 1, "#9cc2ea", "a warp: 32 threads,\none instruction for all"),
    )
    for left, wide, across, up, colour, text in parts:
        boxes(left, 4, wide, 28, across, up, colour)
        title(left, text)
    for left, right in ((42, 48), (62, 68)):
        axes.annotate("", (right - 0.5, 18), (left + 0.3, 18), arrowprops={"arrowstyle": "->", "color": "0.3"})
    where = ("meet at locks", "meet at a launch\nor through atomics", "meet at bar.sync", "run together")
    for (left, *_), text in zip(parts, where, strict=True):
        axes.text(left, 2, text, fontsize=8, va="top", color="0.3")


def answer() -> str:
    each = BLOCK // (WARPS * 32)
    return f"{WARPS} warps, {WARPS * 32} threads, {each} elements per thread: two loads of 16 bytes."


def _kernel(name: str, call: Any, rows: Mapping[str, Mapping[str, Any]], figure: str, figures: Any, **of: Any) -> Case:
    return Case(
        name=name,
        variants=variants(call, rows, figures),
        figure=figure,
        reference=of.pop("reference", lambda x: [2 * x + 1]),
        sizes={"check": (10_001,), "count": (2**15,), "cuda": (2**25,)},
        bytes=lambda size: 8 * size,
        **of,
    )


TOPIC = Topic(
    name="threads",
    what="grid, block, warp and thread, and how they synchronize",
    text=__doc__ or "",
    kernel="`kernels/runtime/launch.py` launches a grid of blocks; `kernels/batch_norm_act/triton.py` has a barrier across the "
    "grid, built from atomics, which requires all blocks to be resident",
    picture=picture,
    exercise=f"A block of {BLOCK:,} elements has num_warps={WARPS}. How many threads is that, and how many elements does each "
    "process?",
    answer=answer,
    cases=(
        _kernel(
            "a grid for all multiprocessors",
            stride,
            {f"{n:,} block{'s' * (n > 1)}": {"blocks": n} for n in (1, 16, 132, 1056)},
            "busy_multiprocessors",
            busy,
            better="132 blocks",
        ),
        _kernel(
            "a sum: the block agrees first",
            add_up,
            {"an atomic per element": {"together": False}, "an atomic per block": {"together": True}},
            "atomics",
            executed.figures,
            reference=lambda x: [x.sum(dtype=np.float64, keepdims=True)],
            draw=lambda rng, size: [normal(rng, size) + 1],
        ),
        _kernel(
            "a barrier that nobody needs",
            wait,
            {"no barrier": {"barrier": False}, "a barrier": {"barrier": True}},
            "barriers",
            executed.figures,
        ),
        Case(
            name="4,096 additions, XLA",
            kind="xla",
            variants=variants(one_by_one, {"one by one": {"at_once": False}, "at once": {"at_once": True}}),
            draw=lambda rng, size: [normal(rng, size) + 1],
            reference=lambda x: [x.sum(dtype=np.float64)],
            sizes={"check": (1_001,), "cpu": (4096,), "cuda": (4096,)},
            bytes=lambda size: 4 * size,
        ),
    ),
)
