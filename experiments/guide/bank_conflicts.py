"""The threads of a warp should access different banks of shared memory.

Shared memory has 32 banks, 4 bytes wide; word w is in bank w mod 32. Each bank gives one word per pass, so a warp whose
threads access 32 words in 32 banks is served in one pass, and one whose words are all in the same bank needs 32.
Threads that access the same word share a pass. A row of a 32 x 32 tile of floats is in 32 banks; a column is in one.

Two remedies: *padding*, rows of 33 words, shifts each row by a bank, for 128 bytes more; a *swizzle* stores element
(row, column) at column XOR row, which costs one instruction and no memory. Both pay wherever a tile is written along
one axis and read along the other, and need equally many passes. They bring nothing where all threads read along rows
anyway. Triton leaves no choice: the compiler swizzles or pads by itself, as the last case shows in its output.

Sources: NVIDIA, CUDA Programming Guide v13, "Shared Memory Access Patterns"; NVIDIA, CUDA C++ Best Practices Guide,
"Shared Memory and Memory Banks". They do not say how 8- and 16-byte accesses are split; see
`kernels/verification/ptx/traffic.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.guide import by_hand, coalescing, executed
from experiments.guide.topic import Case, Topic, Variant, normal, variants

SIDE = 32
# Words of shared memory that a tile takes, and the word of an element: its row and column are names of registers.
LAYOUTS: dict[str, tuple[int, Callable[[str, str], list[str]]]] = {
    "rows of 32 words": (SIDE * SIDE, lambda row, column: [f"mad.lo.s32 %r9, {row}, 32, {column};"]),
    "rows of 33 words": (SIDE * (SIDE + 1), lambda row, column: [f"mad.lo.s32 %r9, {row}, 33, {column};"]),
    "column XOR row": (
        SIDE * SIDE,
        lambda row, column: [f"xor.b32 %r8, {row}, {column};", f"mad.lo.s32 %r9, {row}, 32, %r8;"],
    ),
}


def text_of(layout: str, transposed: bool) -> str:
    """A warp copies a tile through shared memory: writes its rows, and reads its columns (`transposed`) or its rows again."""
    _, word = LAYOUTS[layout]
    lines = ["mul.wide.u32 %d2, %r0, 4;", "add.s64 %d3, %d0, %d2;", "add.s64 %d4, %d1, %d2;", "mov.u32 %r1, memory;"]
    for n in range(SIDE):
        lines += [f"ld.global.f32 %f0, [%d3+{4 * SIDE * n}];", f"mov.u32 %r2, {n};", *word("%r2", "%r0")]
        lines += ["shl.b32 %r9, %r9, 2;", "add.s32 %r9, %r9, %r1;", "st.shared.f32 [%r9], %f0;"]
    lines.append("bar.sync 0;")
    for n in range(SIDE):
        lines += [f"mov.u32 %r2, {n};", *(word("%r0", "%r2") if transposed else word("%r2", "%r0"))]
        lines += ["shl.b32 %r9, %r9, 2;", "add.s32 %r9, %r9, %r1;", "ld.shared.f32 %f0, [%r9];"]
        lines.append(f"st.global.f32 [%d4+{4 * SIDE * n}], %f0;")
    return by_hand.kernel(lines)


def _variant(layout: str, transposed: bool) -> Variant:
    of: Mapping[str, Any] = {"text": text_of(layout, transposed), "shared": 4 * LAYOUTS[layout][0]}
    return Variant(layout, lambda x: by_hand.run(x=x, **of)[0], functools.partial(by_hand.figures, **of))


def _case(name: str, before: str, after: str, transposed: bool = True) -> Case:
    return Case(
        name=name,
        kind="ptx",
        variants=(_variant(before, transposed), _variant(after, transposed)),
        figure="extra_passes",
        draw=lambda rng: [normal(rng, SIDE, SIDE)],
        reference=lambda x: [x.T if transposed else x],
        sizes={"check": ()},
    )


def bank_of(layout: str, row: int, column: int) -> int:
    """The bank of an element."""
    return (row * (33 if "33" in layout else 32) + (column ^ row if "XOR" in layout else column)) % 32


def picture(figure: Any, row: Mapping[str, Any]) -> None:
    """The bank of each element of an 8 x 8 corner, and of column 0 in all rows."""
    from matplotlib.patches import Rectangle

    all_axes = figure.subplots(1, len(LAYOUTS))
    for axes, layout in zip(all_axes, LAYOUTS, strict=True):
        banks = np.array([[bank_of(layout, r, c) for c in range(8)] for r in range(8)])
        axes.imshow(banks, cmap="viridis", vmin=0, vmax=15)
        for r in range(8):
            for c in range(8):
                ink = "white" if banks[r, c] < 10 else "black"
                axes.text(c, r, banks[r, c], ha="center", va="center", fontsize=9, color=ink)
        passes = int(max(np.bincount([bank_of(layout, r, 0) for r in range(SIDE)])))
        axes.set_title(f"{layout}\na column takes {passes} pass{'es' * (passes > 1)}", fontsize=10)
        axes.set_xlabel("column", fontsize=9)
        axes.set_ylabel("row", fontsize=9)
        axes.add_patch(Rectangle((-0.5, -0.5), 1, 8, fill=False, edgecolor="red", linewidth=2))
    figure.suptitle("The bank that holds each element: a corner of a 32 x 32 tile of floats", fontsize=11)


def answer() -> str:
    text = text_of("rows of 32 words", True).replace(", 32, %r", ", 36, %r")
    _, counter, _ = by_hand.run(text, np.ones((SIDE, SIDE), np.float32), shared=4 * SIDE * 36)
    read = counter.counts["shared", "read"]
    return f"{read.parts / read.requests:g}: 36 and 32 share the factor 4, so a column's 32 words are in 8 banks."


TOPIC = Topic(
    name="bank_conflicts",
    what="a warp accesses different banks of shared memory",
    text=__doc__ or "",
    kernel="`experiments/guide/coalescing.py` transposes through shared memory; in `kernels/linear_act/pallas.py` the tiles "
    "that TMA fetches are swizzled by 128 bytes, the form that wgmma reads without conflicts",
    picture=picture,
    exercise="How many passes does a column take in rows of 36 words?",
    answer=answer,
    cases=(
        _case("a column, padded rows", "rows of 32 words", "rows of 33 words"),
        _case("a column, padding or swizzle", "rows of 33 words", "column XOR row"),
        _case("rows alone, padded rows", "rows of 32 words", "rows of 33 words", transposed=False),
        Case(
            name="what Triton does in a transposition",
            variants=variants(
                coalescing.transpose, {f"tiles {n} x {n}": {"high": n, "wide": n} for n in (32, 64)}, executed.figures
            ),
            figure="extra_passes",
            reference=lambda x: [x.T],
            sizes={"check": (67, 131), "count": (1024, 1024), "cuda": (4096, 8192)},
            bytes=lambda rows, columns: 8 * rows * columns,
        ),
    ),
)
