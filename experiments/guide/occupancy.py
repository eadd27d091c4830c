"""Enough work must be in flight to hide the latency of memory.

A Hopper multiprocessor holds up to 2,048 threads in 32 blocks, as long as its 65,536 registers and 228 KB of shared
memory suffice. While one warp waits hundreds of cycles for memory, others run. Occupancy is the share of the 64
possible warps that are resident. What counts is how many bytes are in flight: many warps with one load each, or fewer
with several each. By Little's law the bandwidth is those bytes divided by the latency, up to the hardware's limit. On a
real H200, 16 KB in flight per multiprocessor read 2.76 TB/s (public measurement, see below); at that latency about 26
KB reach the 4.48 TB/s that is the most for reads. More bytes change nothing, so the cases below are decided by the
share of the bandwidth, not by the bytes.

Higher occupancy pays where each thread has one load in flight at a time and registers or shared memory limit the number
of threads. It does not pay where a thread has enough loads or arithmetic of its own, and it is slower where it takes
smaller tiles, which read their operands more often. Too few warps for a large row run out of registers and spill to
memory, which is worse than either.

Sources: NVIDIA, Hopper Tuning Guide, "Occupancy"; NVIDIA, CUDA Programming Guide v13, "Kernel Launch and Occupancy";
NVIDIA, CUDA C++ Best Practices Guide, "Occupancy"; te42kyfo/gpu-benches, gpu-stream/h200.txt (the row of 1,024 threads: two
blocks of them, one float64 each); Azure/AI-benchmarking-guide, ND_H200_v5_results.md (dot: 4.48 TB/s); Volkov 2010, Better
performance at lower occupancy (GTC); Volkov 2016, Understanding latency hiding on GPUs (thesis, Berkeley).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import triton
import triton.language as tl

from experiments.guide import product
from experiments.guide.topic import Case, Counted, Topic, variants
from experiments.measuring.device_model import constants
from kernels.runtime.launch import launch, like
from kernels.runtime.sizes import cdiv, power_of_two


@triton.jit
def scale_kernel(x, y, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, tl.load(x + i, mask=i < SIZE) * 2.0 + 1.0, mask=i < SIZE)


@triton.jit
def softmax_kernel(x, y, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """A row for each program, all of it in registers."""
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    value = tl.load(x + row * COLUMNS + column, mask=column < COLUMNS, other=float("-inf"))
    power = tl.exp(value - tl.max(value, 0))
    tl.store(y + row * COLUMNS + column, power / tl.sum(power, 0), mask=column < COLUMNS)


def scale(x, *, implementation, block, warps=4):
    of = {"grid": (cdiv(x.size, block),), "implementation": implementation, "num_warps": warps}
    return launch(scale_kernel, x, outputs=[like(x)], SIZE=x.size, BLOCK=block, **of)


def softmax(x, *, implementation, warps):
    rows, columns = x.shape
    of = {"grid": (rows,), "implementation": implementation, "num_warps": warps}
    return launch(softmax_kernel, x, outputs=[like(x)], COLUMNS=columns, BLOCK=power_of_two(columns), **of)


def in_flight(counted: Counted, **_: Any) -> dict[str, float]:
    """Bytes that the loads of a multiprocessor's threads ask for before the first of them is needed, and the share of the
    bandwidth that so many sustain: Little's law, up to where more bring nothing."""
    f, enough = counted.figures, constants(counted.kind)["in_flight"]
    asked = f["resident_blocks"] * f["threads"] * f["loads_in_a_row"] * f["load_bytes"]
    return {"bytes_in_flight": asked, "read_share": min(1.0, asked / enough)}


# GB/s that reads of an H200 reached with so many KB in flight per multiprocessor: te42kyfo/gpu-benches, gpu-stream/h200.txt.
PUBLIC = {2: 485, 4: 935, 6: 1314, 8: 1707, 10: 1996, 12: 2297, 14: 2539, 16: 2756}


def picture(figure: Any, row: Mapping[str, Any]) -> None:
    """Bandwidth over bytes in flight: a public measurement, the model's line, and the variants of the first case."""
    axes, model = figure.subplots(), constants("nvidia-h200")
    enough, peak = model["in_flight"] / 1024, model["read_memory"] / 1e12
    axes.plot([0, enough, 60], [0, peak, peak], color="#7F7F7F", label="model")
    axes.plot(
        list(PUBLIC), [rate / 1e3 for rate in PUBLIC.values()], "o", color="#0072B2", label="measured on an H200 (public)"
    )
    case = next(case for case in row["cases"] if case["name"] == "loads of one thread")
    for name, variant in case["variants"].items():
        asked = variant["compiled"]["bytes_in_flight"] / 1024
        if asked <= 60:
            axes.axvline(asked, color="#D55E00", linewidth=1)
            axes.text(asked + 0.6, 0.15, name, rotation=90, fontsize=9, color="#D55E00", va="bottom")
    axes.set_xlabel("KB in flight per multiprocessor", fontsize=9)
    axes.set_ylabel("TB/s read", fontsize=9)
    axes.set_xlim(0, 60)
    axes.set_ylim(0, 5)
    axes.grid(color="#D9D9D9", linewidth=0.6)
    axes.legend(fontsize=9, loc="lower right")


def answer() -> str:
    each = constants("nvidia-h200")["in_flight"] / 2048
    return f"{each:.0f} bytes: more than three floats, so one 16-byte load per thread is enough."


def softmax_reference(x):
    power = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    return [power / power.sum(1, keepdims=True)]


def _rows(name: str, warps: tuple[int, ...], figure: str) -> Case:
    return Case(
        name=name,
        variants=variants(softmax, {f"{n} warps": {"warps": n} for n in warps}, in_flight),
        figure=figure,
        reference=softmax_reference,
        sizes={"check": (5, 1001), "cuda": (2048, 16_384)},
        bytes=lambda rows, columns: 8 * rows * columns,
    )


TOPIC = Topic(
    name="occupancy",
    what="enough warps, or enough loads in each, to hide the latency of memory",
    text=__doc__ or "",
    picture=picture,
    exercise="At full occupancy, how many bytes must each thread have in flight to reach the full bandwidth?",
    answer=answer,
    kernel="`kernels/verification/residency.py` computes the resident blocks of a compiled kernel; the persistent LSTM "
    "(`kernels/recurrent/config.py`, `plan`) deliberately runs one block per multiprocessor, which uses all its registers",
    cases=(
        Case(
            name="loads of one thread",
            variants=variants(scale, {f"{count} a thread": {"block": 128 * count} for count in (1, 4, 16, 64)}, in_flight),
            better="4 a thread",
            figure="read_share",
            reference=lambda x: [2 * x + 1],
            sizes={"check": (10_001,), "cuda": (2**25,)},
            bytes=lambda size: 8 * size,
        ),
        _rows("too few warps for a row of 16,384", (2, 4, 8), "spilled_bytes"),
        _rows("more warps for a row of 16,384", (8, 16, 32), "read_share"),
        product.case(
            "occupancy bought with small tiles",
            (product.tiles(128, 256, 64, warps=8), product.tiles(64, 64), product.tiles(32, 32)),
            "asked_bytes",
        ),
    ),
)
