"""Neighbouring threads should access neighbouring bytes.

A warp of 32 threads issues its loads together, and memory answers in sectors of 32 bytes. Threads that load
neighbouring elements use the sectors in full; a stride of eight floats or more leaves one useful float in each, which
wastes seven eighths of the bandwidth. With contiguous elements one instruction can also load 16 bytes per thread
instead of four.

Coalescing pays wherever data come from device memory. It saves no bytes where the same block soon uses the rest of each
sector and the first-level cache still holds it: then only the number of requests grows. "All sixteen fields" below is
such a case: a block's 1,024 records take 64 KB, and two or three such blocks fit the 256 KB of cache and shared memory.
More blocks per multiprocessor, or larger ones, would fetch sectors again. In Triton you do not assign threads to
elements: the compiler lays a tile out along the axis it knows to be contiguous. You choose the layout of the array and
the shape of the tile; a tile that is wide along both axes is transposed through shared memory, so that both sides are
coalesced.

Sources: NVIDIA, CUDA Programming Guide v13, "Coalesced Global Memory Access"; NVIDIA, CUDA C++ Best Practices Guide,
"Coalesced Access to Global Memory"; Tillet, Kung and Cox 2019, Triton (MAPL).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import triton
import triton.language as tl

from experiments.guide import by_hand, executed
from experiments.guide.topic import Case, Topic, normal, variants
from kernels.runtime.launch import launch, like
from kernels.runtime.sizes import cdiv
from kernels.verification.ptx.traffic import SECTOR

FIELDS = 16
LAYOUTS = {"records, x[i, f]": False, "planes, x[f, i]": True}
BLOCK = 1024


@triton.jit
def fields_kernel(
    x, y, SIZE: tl.constexpr, FIELDS: tl.constexpr, USED: tl.constexpr, PLANES: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """y[i] is the sum of the first USED fields of record i; field f of it is x[f, i] (PLANES) or x[i, f]."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for f in tl.static_range(USED):
        if PLANES:
            total += tl.load(x + f * SIZE + i, mask=i < SIZE, other=0.0)
        else:
            total += tl.load(x + i * FIELDS + f, mask=i < SIZE, other=0.0)
    tl.store(y + i, total, mask=i < SIZE)


@triton.jit
def transpose_kernel(x, y, ROWS: tl.constexpr, COLUMNS: tl.constexpr, HIGH: tl.constexpr, WIDE: tl.constexpr):
    """y = x.T, a tile of HIGH x WIDE of x at a time."""
    row = tl.program_id(0) * HIGH + tl.arange(0, HIGH)
    column = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    inside = (row < ROWS)[:, None] & (column < COLUMNS)[None, :]
    tile = tl.load(x + row[:, None] * COLUMNS + column[None, :], mask=inside)
    tl.store(y + column[:, None] * ROWS + row[None, :], tl.trans(tile), mask=tl.trans(inside))


def fields(records, planes, *, implementation, used, by_planes):
    size, x = records.shape[0], planes if by_planes else records
    of = {"SIZE": size, "FIELDS": FIELDS, "USED": used, "PLANES": by_planes, "BLOCK": BLOCK}
    return launch(fields_kernel, x, outputs=[like(x, (size,))], grid=(cdiv(size, BLOCK),), implementation=implementation, **of)


def transpose(x, *, implementation, high, wide):
    rows, columns = x.shape
    of = {"ROWS": rows, "COLUMNS": columns, "HIGH": high, "WIDE": wide, "implementation": implementation}
    return launch(transpose_kernel, x, outputs=[like(x, (columns, rows))], grid=(cdiv(rows, high), cdiv(columns, wide)), **of)


def draw_records(rng, size):
    records = normal(rng, size, FIELDS)
    return [records, records.T]


def _fields_case(name: str, used: int, figure: str) -> Case:
    layouts = {label: {"used": used, "by_planes": planes} for label, planes in LAYOUTS.items()}
    return Case(
        name=name,
        variants=variants(fields, layouts, executed.figures),
        figure=figure,
        draw=draw_records,
        reference=lambda records, planes: [records[:, :used].sum(1, dtype="float64")],
        sizes={"check": (1025,), "count": (2048,), "cuda": (2**21,)},
        bytes=lambda size: 4 * size * (used + 1),
    )


def strided(stride: int) -> tuple[float, float]:
    """Sectors and bytes of sectors per byte used, of a warp that loads every stride-th float; executed."""
    lines = [f"mul.wide.u32 %d2, %r0, {4 * stride};", "add.s64 %d3, %d0, %d2;", "ld.global.f32 %f0, [%d3];"]
    lines += ["mul.wide.u32 %d2, %r0, 4;", "add.s64 %d4, %d1, %d2;", "st.global.f32 [%d4], %f0;"]
    _, counter, _ = by_hand.run(by_hand.kernel(lines), np.zeros(32 * stride, np.float32))
    read = counter.counts["global", "read"]
    return read.parts, SECTOR * read.parts / read.bytes


def picture(figure: Any, row: Mapping[str, Any]) -> None:
    """The floats of the first sectors that a warp uses, and the sectors per request over the stride."""
    from matplotlib.patches import Rectangle

    left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
    for place, stride in enumerate((1, 2, 8)):
        for number in range(32):
            used = number % stride == 0
            at = (number % 8 * 0.95 + number // 8 * 8.4, -2 * place)
            left.add_patch(Rectangle(at, 0.85, 1, facecolor="#0072B2" if used else "#D9D9D9", edgecolor="none"))
        left.text(0, 1.15 - 2 * place, f"stride {stride}: {100 // stride} % of each sector used", fontsize=9)
    left.set_xlim(-0.5, 33.5)
    left.set_ylim(-4.6, 2)
    left.set_axis_off()
    left.set_title("the first four sectors of 32 bytes, a float each box", fontsize=10)
    strides = (1, 2, 3, 4, 6, 8, 12, 16)
    right.plot(strides, [strided(n)[0] for n in strides], "o-", color="#0072B2")
    right.set_xlabel("stride, floats", fontsize=9)
    right.set_ylabel("sectors per request (executed)", fontsize=9)
    right.set_ylim(0)
    right.grid(color="#D9D9D9", linewidth=0.6)


def answer() -> str:
    sectors, share = strided(4)
    return f"{sectors:g} sectors, of which one byte in {share:g} is used."


TILES = ((1, 1024), (1024, 1), (16, 64), (32, 32), (64, 64))

TOPIC = Topic(
    name="coalescing",
    what="neighbouring threads access neighbouring bytes",
    text=__doc__ or "",
    picture=picture,
    exercise="How many sectors does a warp fetch that loads every fourth float, and what share of them does it use?",
    answer=answer,
    kernel="`kernels/max_pool/triton.py`: neighbouring threads process neighbouring channels and columns, whatever the window; "
    "`NARROWEST` in `kernels/batch_norm_act/config.py` keeps a slice of channels at least two sectors wide",
    cases=(
        _fields_case("one field of sixteen", 1, "sector_bytes_per_byte"),
        _fields_case("all sixteen fields", FIELDS, "sector_bytes_per_byte_in_block"),
        Case(
            name="transposing",
            variants=variants(
                transpose, {f"tiles {high} x {wide}": {"high": high, "wide": wide} for high, wide in TILES}, executed.figures
            ),
            figure="sector_bytes_per_byte",
            reference=lambda x: [x.T],
            sizes={"check": (67, 131), "count": (1024, 1024), "cuda": (4096, 8192)},
            bytes=lambda rows, columns: 8 * rows * columns,
        ),
    ),
)
