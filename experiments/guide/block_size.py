"""How much work one block gets.

A larger tile reads its operands less often and gives each thread several elements, so that addresses and loop counters
are computed once for many, and one instruction loads 16 bytes. But a grid of fewer blocks than multiprocessors leaves
some of them idle, and a tile that needs more registers than a thread may have (255) spills to memory.

So the best size depends on shape and device: large tiles for large products, small ones for small products, four to
sixteen elements per thread for elementwise work. A tile with fewer elements than the block has threads is never right:
Triton gives a block 32 threads per warp whatever the tile, and the surplus threads repeat the work of others. Measure
the candidates to decide; counting shows which are not worth measuring.

Sources: NVIDIA, CUDA C++ Best Practices Guide, "Thread and Block Heuristics"; NVIDIA, Hopper Tuning Guide, "Occupancy";
NVIDIA, Matrix Multiplication Background User's Guide, "Tile Quantization" and "Wave Quantization".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.guide import executed, product
from experiments.guide.occupancy import scale
from experiments.guide.topic import Case, Topic, variants
from kernels.runtime import gpus


def picture(figure: Any, row: Mapping[str, Any]) -> None:
    """Instructions per element over the block's elements."""
    axes = figure.subplots()
    case = next(case for case in row["cases"] if case["name"] == "elementwise")
    counts = {int(name.split()[-1]): v["compiled"]["executed_per_element"] for name, v in case["variants"].items()}
    axes.plot(list(counts), list(counts.values()), "o-", color="#0072B2")
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(counts), [f"{n:,}" for n in counts], fontsize=9)
    axes.set_ylim(0)
    axes.set_xlabel("elements of a block of 128 threads", fontsize=9)
    axes.set_ylabel("instructions executed per element", fontsize=9)
    axes.axvline(128, color="#D55E00", linewidth=1)
    axes.text(135, 60, "fewer elements than threads\nto the left", fontsize=9, color="#D55E00")
    axes.grid(color="#D9D9D9", linewidth=0.6)


def answer() -> str:
    cores = gpus.GPUS["h200"].cores
    return f"{cores * 1024:,}: with fewer, some of its {cores} multiprocessors are idle."


SMALL = {"cuda": (256, 4096, 512)}
LARGE = (
    product.tiles(32, 32),
    product.tiles(64, 64),
    product.tiles(128, 128, warps=8),
    product.tiles(128, 256, warps=8),
    product.tiles(256, 256, warps=8),
)

TOPIC = Topic(
    name="block_size",
    what="enough work for a block, and enough blocks for the device",
    text=__doc__ or "",
    picture=picture,
    exercise="From how many elements do blocks of 1,024 elements use all of an H200?",
    answer=answer,
    kernel="each `config.py` under `kernels/` lists candidates and a rule, for instance "
    "`kernels/linear_act/config.py` (`choose`): the "
    "largest tile that still gives every multiprocessor a block; `python -m kernels tune` measures them",
    cases=(
        Case(
            name="elementwise",
            variants=variants(
                scale, {f"blocks of {n}": {"block": n} for n in (32, 128, 512, 1024, 4096, 16_384)}, executed.per_element
            ),
            baseline="blocks of 128",
            better="blocks of 1024",
            figure="executed_per_element",
            reference=lambda x: [2 * x + 1],
            sizes={"check": (10_001,), "count": (2**15,), "cuda": (2**25,)},
            bytes=lambda size: 8 * size,
        ),
        product.case("a large product", LARGE, "asked_bytes", better="tiles 128 x 256"),
        product.case("a tile too large", LARGE[-2:], "spilled_bytes"),
        product.case("a small product", LARGE[:3], "busy_multiprocessors", sizes=SMALL),
    ),
)
