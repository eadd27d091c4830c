"""Several iterations of a loop at once.

A loop costs a counter and a branch per iteration, which is little. Unrolling pays because the loads of several
iterations are issued before the first of them is needed, so their waits overlap.

It pays where the iterations are independent, their loads come from memory, and the length is known only at run time, so
that the compiler does not unroll. It brings nothing where the length is a constant: the assembler unrolls such a loop
by itself. It is pure cost where each iteration needs the result of the previous one: no load can be issued early, and
the program grows with every iteration, all of which must be compiled and fetched. For XLA, `lax.scan(unroll=n)` poses
the same question with kernels instead of instructions: XLA can fuse across the n steps of an iteration, but its program
is n times as long.

Sources: NVIDIA, CUDA C++ Best Practices Guide, "Branch Predication" and "Loop Counters Signed vs. Unsigned"; NVIDIA, CUDA
Programming Guide v13, "C/C++ Language Extensions"; Volkov 2010, Better performance at lower occupancy (GTC).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import triton
import triton.language as tl

from experiments.guide.topic import Case, Topic, normal, variants
from kernels.runtime.launch import launch, like
from kernels.runtime.sizes import cdiv

ROWS, STEPS, BLOCK = 64, 256, 512


@triton.jit
def column_sums_kernel(
    x, length, y, COLUMNS: tl.constexpr, ROWS: tl.constexpr, HOW: tl.constexpr, STAGES: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """y[c] is the sum of the first length[0] rows of x[:, c]; ROWS is the same number, known when it is compiled."""
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = column < COLUMNS
    total = tl.zeros((BLOCK,), tl.float32)
    rows = tl.load(length)
    if HOW == "run time":
        for row in tl.range(0, rows, num_stages=STAGES):
            total += tl.load(x + row * COLUMNS + column, mask=inside, other=0.0)
    elif HOW == "run time, eight":
        for row in tl.range(0, rows, loop_unroll_factor=8):
            total += tl.load(x + row * COLUMNS + column, mask=inside, other=0.0)
    elif HOW == "constant":
        for row in tl.range(0, ROWS, num_stages=STAGES):
            total += tl.load(x + row * COLUMNS + column, mask=inside, other=0.0)
    else:
        for row in tl.static_range(ROWS):
            total += tl.load(x + row * COLUMNS + column, mask=inside, other=0.0)
    tl.store(y + column, total, mask=inside)


@triton.jit
def chain_kernel(x, length, y, SIZE: tl.constexpr, STEPS: tl.constexpr, HOW: tl.constexpr, BLOCK: tl.constexpr):
    """STEPS times v -> exp(-v v): each step needs the one before."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + i, mask=i < SIZE, other=0.0)
    if HOW == "run time":
        for _ in range(tl.load(length)):
            value = tl.exp(-value * value)
    else:
        for _ in tl.static_range(STEPS):
            value = tl.exp(-value * value)
    tl.store(y + i, value, mask=i < SIZE)


def column_sums(x, length, *, implementation, how, stages=1):
    rows, columns = x.shape
    of = {"COLUMNS": columns, "ROWS": rows, "HOW": how, "STAGES": stages, "BLOCK": BLOCK, "num_stages": stages}
    grid = (cdiv(columns, BLOCK),)
    return launch(column_sums_kernel, x, length, outputs=[like(x, (columns,))], grid=grid, implementation=implementation, **of)


def chain(x, length, *, implementation, how):
    of = {"SIZE": x.size, "STEPS": STEPS, "HOW": how, "BLOCK": BLOCK}
    return launch(chain_kernel, x, length, outputs=[like(x)], grid=(cdiv(x.size, BLOCK),), implementation=implementation, **of)


def recurrence(x, w, *, unroll):
    """The last state of h -> tanh(x_t + h w)."""
    step = lambda h, x: (jnp.tanh(x + h @ w), None)
    return jax.lax.scan(step, jnp.zeros_like(x[0]), x, unroll=unroll)[0]


def recurrence_reference(x, w):
    h = np.zeros_like(x[0], np.float64)
    for step in x:
        h = np.tanh(step + h @ w)
    return [h]


def chain_reference(x, length):
    value = x.astype(np.float64)
    for _ in range(STEPS):
        value = np.exp(-value * value)
    return [value]


def draw_columns(rng, columns):
    return [normal(rng, ROWS, columns), np.full(1, ROWS, np.int32)]


def _sums_case(name: str, *hows: str) -> Case:
    return Case(
        name=name,
        variants=variants(column_sums, {how: {"how": how} for how in hows}),
        figure="loads_in_a_row",
        draw=draw_columns,
        reference=lambda x, length: [x.sum(0, dtype=np.float64)],
        sizes={"check": (1_301,), "cuda": (2**19,)},
        bytes=lambda columns: 4 * columns * (ROWS + 1),
    )


def picture(figure: Any, row: Mapping[str, Any]) -> None:
    """Eight loads in a row or in groups: each group waits once."""
    axes, loads = figure.subplots(), 8
    variants_of = row["cases"][0]["variants"]
    heights, labels = [], []
    for place, (name, variant) in enumerate(variants_of.items()):
        together = int(variant["compiled"]["loads_in_a_row"])
        for load in range(loads):
            y, start = -(place * (loads + 2) + load), load // together
            axes.barh(y, 1, 0.7, left=start, color="#D55E00" if place == 0 else "#0072B2")
        heights.append(-(place * (loads + 2) + (loads - 1) / 2))
        labels.append(f"{name}:\n{together} loads in a row,\n{loads // together} waits")
    axes.set_yticks(heights, labels, fontsize=9)
    axes.set_xticks(range(loads // 2 + 1))
    axes.set_xlabel("time, in waits for device memory; each bar is one load of eight", fontsize=9)
    axes.grid(axis="x", color="#D9D9D9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def answer() -> str:
    chain = lambda together: cdiv(STEPS, together)
    return f"{chain(1)}, {chain(8)} and {chain(STEPS)} waits; the last needs a register for each value."


TOPIC = Topic(
    name="unrolling",
    what="several iterations of a loop at once",
    text=__doc__ or "",
    picture=picture,
    exercise="A thread adds up 256 values from device memory. How often does it wait with 1, 8 or all loads issued at once?",
    answer=answer,
    kernel="`kernels/max_pool/triton.py` writes out its window (`tl.static_range`); the comparison also runs XLA's loops over "
    "time unrolled by eight (`xla unroll 8` in docs/comparison.md)",
    cases=(
        _sums_case("a length known when it runs", "run time", "run time, eight"),
        _sums_case("a length known when it is compiled", "constant", "written out"),
        Case(
            name="256 steps that need each other",
            variants=variants(chain, {how: {"how": how} for how in ("run time", "written out")}),
            figure="instructions",
            unit="instructions",
            draw=lambda rng, size: [normal(rng, size), np.full(1, STEPS, np.int32)],
            reference=chain_reference,
            sizes={"check": (1_301,), "cuda": (2**22,)},
            bytes=lambda size: 8 * size,
        ),
        Case(
            name="lax.scan over 128 steps, XLA",
            kind="xla",
            variants=variants(recurrence, {f"unroll {n}": {"unroll": n} for n in (1, 8, 32)}),
            better="unroll 8",
            draw=lambda rng, steps, batch, width: [
                normal(rng, steps, batch, width),
                normal(rng, width, width) / np.float32(width),
            ],
            reference=recurrence_reference,
            sizes={"check": (33, 5, 17), "cpu": (128, 32, 128), "cuda": (128, 32, 128)},
            bytes=lambda steps, batch, width: 4 * (steps * batch * width + width * width),
            flops=lambda steps, batch, width: 2 * steps * batch * width * width,
        ),
    ),
)
