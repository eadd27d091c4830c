"""Threads of a warp that diverge execute every branch that one of them takes.

The 32 threads of a warp share the instructions they fetch. Where a branch splits them, the warp runs both sides, one
after the other, with part of its threads switched off; where all agree, it skips the other side. A loop runs for all of
them until the last one is done.

For short sides a compiler uses *predicates* instead: the warp issues every instruction of both sides, and each thread
executes its own. That saves the branches, and costs both sides in full where the threads agree. The cases "within a
warp" show this in hand-written PTX, executed for two warps.

Triton has no branch for a single element: `tl.where` computes both sides for every element and selects, and a mask
disables loads and stores, which costs a predicate and no branch. Triton does branch on a scalar, for the whole block.
This pays where whole blocks agree because the data are grouped or sorted, and does nothing where every block holds both
kinds. Smaller blocks agree more often, but lose the advantages of larger ones. For XLA, `lax.cond` under `vmap` is a
selection too.

Sources: NVIDIA, CUDA Programming Guide v13, "SIMT Execution Model"; NVIDIA, CUDA C++ Best Practices Guide, "Branching and
Divergence"; Tillet, Kung and Cox 2019, Triton (MAPL).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import triton
import triton.language as tl

from experiments.guide import by_hand
from experiments.guide.topic import Case, Counted, Topic, Variant, normal, variants
from kernels.runtime.launch import launch, like
from kernels.runtime.sizes import cdiv

STEPS, BLOCK = 16, 1024


@triton.jit
def long_way(value, STEPS: tl.constexpr):
    for _ in tl.static_range(STEPS):
        value = tl.exp(-value * value)
    return value


@triton.jit
def sides_kernel(x, y, SIZE: tl.constexpr, STEPS: tl.constexpr, BRANCH: tl.constexpr, BLOCK: tl.constexpr):
    """STEPS times v -> exp(-v v) where x is above 0, else x / 2."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + i, mask=i < SIZE, other=0.0)
    long = value > 0.0
    result = value * 0.5
    if BRANCH:
        if tl.max(long.to(tl.int32), 0) > 0:
            result = tl.where(long, long_way(value, STEPS), result)
    else:
        result = tl.where(long, long_way(value, STEPS), result)
    tl.store(y + i, result, mask=i < SIZE)


@triton.jit
def settle_kernel(x, counts, order, y, SIZE: tl.constexpr, SORTED: tl.constexpr, BLOCK: tl.constexpr):
    """counts[i] times v -> exp(-v v), from x[i] on; the block goes on until its last element is done."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < SIZE
    i = tl.load(order + place, mask=inside, other=0) if SORTED else place
    value = tl.load(x + i, mask=inside, other=0.0)
    count = tl.load(counts + i, mask=inside, other=0)
    for step in range(tl.max(count, 0)):
        value = tl.where(step < count, tl.exp(-value * value), value)
    tl.store(y + i, value, mask=inside)


def sides(x, *, implementation, branch):
    of = {"SIZE": x.size, "STEPS": STEPS, "BRANCH": branch, "BLOCK": BLOCK}
    return launch(sides_kernel, x, outputs=[like(x)], grid=(cdiv(x.size, BLOCK),), implementation=implementation, **of)


def settle(x, counts, order, *, implementation, block, warps, by_count=False):
    of = {"SIZE": x.size, "SORTED": by_count, "BLOCK": block, "num_warps": warps, "implementation": implementation}
    return launch(settle_kernel, x, counts, order, outputs=[like(x)], grid=(cdiv(x.size, block),), **of)


def blocks_of(values: np.ndarray, block: int) -> np.ndarray:
    """[blocks, block], the last one filled up with zeros."""
    padded = np.zeros(cdiv(values.size, block) * block, values.dtype)
    padded[: values.size] = values
    return padded.reshape(-1, block)


def side_figures(counted: Counted, branch: bool) -> dict[str, float]:
    """Long steps that are executed for an element, on the inputs of seed 0."""
    (x,) = counted.case.draw(np.random.default_rng(0), *counted.size)
    taken = (blocks_of(x, BLOCK) > 0).any(1).mean() if branch else 1.0
    return {
        "blocks_that_branch": float(taken),
        "steps_per_element": STEPS * float(taken),
        "steps_needed": STEPS * float((x > 0).mean()),
    }


def settle_figures(counted: Counted, block: int, by_count: bool = False, **_: Any) -> dict[str, float]:
    """Steps that threads take part in, for each step that an element needs, on the inputs of seed 0."""
    _values, counts, order = counted.case.draw(np.random.default_rng(0), *counted.size)
    blocks = blocks_of(counts[order] if by_count else counts, block)
    return {"steps_per_step_needed": float(blocks.max(1).astype(np.int64).sum() * block / counts.sum(dtype=np.int64))}


def draw_counts(rng, size):
    counts = np.minimum(rng.geometric(1 / 8, (size,)), 64).astype(np.int32)
    return [normal(rng, size), counts, np.argsort(counts, kind="stable").astype(np.int32)]


def settle_reference(x, counts, order):
    value = x.astype(np.float64)
    for step in range(int(counts.max())):
        value = np.where(step < counts, np.exp(-value * value), value)
    return [value]


def sides_reference(x):
    return [np.where(x > 0, settle_reference(x, np.full(x.shape, STEPS), None)[0], x / 2)]


def rows(x, *, select):
    """Eight times tanh on rows that begin above 0, half of the others."""
    long = lambda row: jax.lax.fori_loop(0, 8, lambda _, v: jnp.tanh(v + 0.1), row)
    one = lambda row: jax.lax.cond(row[0] > 0, long, lambda row: row * 0.5, row)
    return jax.vmap(one)(x) if select else jax.lax.map(one, x)


def rows_reference(x):
    long = x.astype(np.float64)
    for _ in range(8):
        long = np.tanh(long + 0.1)
    return [np.where(x[:, :1] > 0, long, x / 2)]


HOWS = ("branch", "predicates", "selection")


def two_sides(length: int, how: str) -> str:
    """v -> v + 1, `length` times, where x is above 0; v -> v - 1 as often elsewhere: by a branch of each thread, by predicates
    on each instruction, or by computing both and selecting."""
    up, down = ([f"add.f32 {to}, {to}, {by};"] * length for to, by in (("%f1", "0f3F800000"), ("%f2", "0fBF800000")))
    down_same = [line.replace("%f2", "%f1") for line in down]
    lines = ["mov.u32 %r1, %ctaid.x;", "mad.lo.s32 %r2, %r1, 32, %r0;", "mul.wide.u32 %d2, %r2, 4;", "add.s64 %d3, %d0, %d2;"]
    lines += ["add.s64 %d4, %d1, %d2;", "ld.global.f32 %f0, [%d3];", "mov.f32 %f1, %f0;", "setp.gt.f32 %p1, %f0, 0f00000000;"]
    if how == "branch":
        lines += ["@!%p1 bra DOWN;", *up, "bra END;", "DOWN:", *down_same, "END:"]
    elif how == "predicates":
        lines += [f"@%p1 {line}" for line in up] + [f"@!%p1 {line}" for line in down_same]
    else:
        lines += ["mov.f32 %f2, %f0;", *up, *down, "selp.f32 %f1, %f1, %f2, %p1;"]
    return by_hand.kernel([*lines, "st.global.f32 [%d4], %f1;"])


def _warp_case(name: str, length: int, grouped: bool, hows: tuple[str, ...] = HOWS, better: str = "") -> Case:
    """64 elements, two blocks of a warp each; `grouped`: the first 32 are above 0, the others below."""

    def draw(rng):
        x = np.abs(normal(rng, 64)) + 0.5
        return [x * np.where(np.arange(64) < 32 if grouped else np.arange(64) % 2, 1, -1).astype(np.float32)]

    def variant(how: str) -> Variant:
        of: dict[str, Any] = {"text": two_sides(length, how), "blocks": 2}
        return Variant(how, lambda x: by_hand.run(x=x, **of)[0], functools.partial(by_hand.figures, **of))

    return Case(
        name=name,
        kind="ptx",
        variants=tuple(map(variant, hows)),
        better=better,
        figure="executed_instructions",
        draw=draw,
        reference=lambda x: [x + np.where(x > 0, length, -length)],
        sizes={"check": ()},
    )


def picture(figure: Any, row: Mapping[str, Any]) -> None:
    """Instructions that two warps execute over the length of each side, for mixed and for grouped threads."""
    lengths = (1, 2, 4, 8, 16, 32)
    all_axes = figure.subplots(1, 2, sharey=True)
    for axes, grouped in zip(all_axes, (False, True), strict=True):
        for how, colour in zip(HOWS[:2], ("#D55E00", "#0072B2"), strict=True):
            case = _warp_case("", 1, grouped)
            (x,) = case.draw(np.random.default_rng(0))
            counts = [by_hand.run(two_sides(n, how), x, 2)[2].instructions for n in lengths]
            axes.plot(lengths, counts, "o-", color=colour, label=how)
        axes.set_title("a warp's threads agree" if grouped else "every warp has both kinds", fontsize=10)
        axes.set_xlabel("instructions on each side", fontsize=9)
        axes.grid(color="#D9D9D9", linewidth=0.6)
    all_axes[0].set_ylabel("instructions executed by two warps", fontsize=9)
    all_axes[0].legend(fontsize=9)


def answer() -> str:
    case = _warp_case("", 1, True)
    (x,) = case.draw(np.random.default_rng(0))
    count = lambda n, how: by_hand.run(two_sides(n, how), x, 2)[2].instructions
    longest = next(n for n in range(1, 32) if count(n, "branch") < count(n, "predicates"))
    return f"From {longest} instructions on each side. The assembler turns short branches into predicates by itself."


def _sides_case(name: str, grouped: bool) -> Case:
    def draw(rng, size):
        x = normal(rng, size)
        return [np.sort(x) if grouped else x]

    forms = {"both sides, tl.where": {"branch": False}, "a branch for each block": {"branch": True}}
    return Case(
        name=name,
        variants=variants(sides, forms, side_figures),
        figure="steps_per_element",
        draw=draw,
        reference=sides_reference,
        sizes={"check": (9_001,), "cuda": (2**22,)},
        bytes=lambda size: 8 * size,
    )


BLOCKS = {
    "blocks of 1024": {"block": 1024, "warps": 4},
    "blocks of 32": {"block": 32, "warps": 1},
    "blocks of 1024, sorted by length": {"block": 1024, "warps": 4, "by_count": True},
}

TOPIC = Topic(
    name="divergence",
    what="threads that run together take the same branch",
    text=__doc__ or "",
    kernel="`kernels/max_pool/triton.py` (`backward_kernel`) visits every window that may cover an element and selects: masks, "
    "no branch, and loops whose length is known at compile time",
    picture=picture,
    exercise="The threads of a warp agree. From which length of the sides does a branch execute fewer instructions than "
    "predicates?",
    answer=answer,
    cases=(
        _warp_case("within a warp: both kinds of threads, 16 steps", 16, False, ("selection", "branch")),
        _warp_case("within a warp: threads agree, 16 steps", 16, True, ("selection", "branch")),
        _warp_case("within a warp: one step, predicated", 1, False, ("branch", "predicates")),
        _warp_case("within a warp: threads agree, predicated", 16, True, ("branch", "predicates")),
        _sides_case("two sides, grouped data", True),
        _sides_case("two sides, mixed data", False),
        Case(
            name="a loop until the last one is done",
            variants=variants(settle, BLOCKS, settle_figures),
            figure="steps_per_step_needed",
            draw=draw_counts,
            reference=settle_reference,
            sizes={"check": (3_001,), "cuda": (2**22,)},
            bytes=lambda size: 12 * size,
        ),
        Case(
            name="lax.cond on each row, XLA",
            kind="xla",
            variants=variants(rows, {"vmap: both sides": {"select": True}, "lax.map: one side": {"select": False}}),
            figure="kernels",
            reference=rows_reference,
            sizes={"check": (9, 101), "cpu": (64, 16_384), "cuda": (64, 16_384)},
            bytes=lambda rows, columns: 8 * rows * columns,
        ),
    ),
)
