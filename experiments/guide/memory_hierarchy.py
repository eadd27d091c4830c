"""Data that are reused should be close to the processor.

From near to far: registers (256 KB per multiprocessor), shared memory and the first-level cache (256 KB together, at
most 228 KB of it shared), the second-level cache (L2) of the whole chip, device memory (141 GB). Each is slower than
the one before, but not always larger: the registers of a multiprocessor exceed its shared memory, and those of all 132
(34 MB) add up to more than half of the L2. A public measurement of an H200 reads 9.7 TB/s from its L2 and 3.9 TB/s from
memory; at about 58 MB the L2's rate has halved. The H200's L2 is probably 60 MB, as an H100 NVL reports; XLA's
description says 50 MB, and plans here use that. On an H100 it is 50 MB in two partitions: 265 cycles to the near one,
460 to 480 where data come from the far one as well. Device memory delivers less than half a byte for every hundred
operations that the tensor cores can do, so what matters is which data leave the chip, and how often.

The cases show two forms of reuse. A matrix product in tiles reads each operand once for every tile that needs it: a
tile twice as large requests half the bytes. And work that reads its input twice, such as subtracting the mean, can be
cut into slices that are still in the second-level cache at the second reading. It does not pay where the data fit the
cache anyway, where nothing is used twice, or where the slices cost more launches than the bytes they save. A slice
counts as fitting if it takes no more than `L2_SHARE` (0.6) of the cache, the rule of
`kernels/batch_norm_act/config.py`: the rest is left for data that stream through.

Sources: NVIDIA, CUDA Programming Guide v13, "GPU Device Memory Spaces" and "Compute Capabilities"; NVIDIA, Hopper Tuning
Guide, "Memory System"; te42kyfo/gpu-benches, gpu-l2-cache/h200.txt, gpu-l2-cache/h100_pcie.txt (an H100 PCIe: 6.9 TB/s,
half of that at 40 MB, the rate of its memory from 48 MB on) and gpu-latency/h100_pcie.txt; caps-tum/mt4g,
results/H100NVL.json; Chips and Cheese 2023, Nvidia's H100: Funny L2, and Tons of Bandwidth (50 MB of the chip's 60
enabled); Lam, Rothberg and Wolf 1991, The cache performance and optimizations of blocked algorithms (ASPLOS).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import triton
import triton.language as tl

from experiments.guide import product
from experiments.guide.evidence import modelled
from experiments.guide.topic import Case, Counted, Topic, normal, variants
from experiments.measuring.device_model import constants
from kernels.batch_norm_act.config import L2_SHARE
from kernels.runtime import gpus
from kernels.runtime.launch import launch, like
from kernels.runtime.sizes import cdiv

PARTS = 16  # blocks that share a row
BLOCK = 2048
PASSES = 8


@triton.jit
def sums_kernel(
    x, start_row, sums, COLUMNS: tl.constexpr, PARTS: tl.constexpr, LENGTH: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """sums[row, part] of rows from start_row[0] on; LENGTH columns belong to a part."""
    row, part = tl.program_id(0), tl.program_id(1)
    first = tl.load(start_row)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, LENGTH, BLOCK):
        within = start + tl.arange(0, BLOCK)
        column = part * LENGTH + within
        total += tl.load(x + (first + row) * COLUMNS + column, mask=(within < LENGTH) & (column < COLUMNS), other=0.0)
    tl.store(sums + row * PARTS + part, tl.sum(total, 0))


@triton.jit
def centre_kernel(
    x, start_row, sums, y, COLUMNS: tl.constexpr, PARTS: tl.constexpr, LENGTH: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """y = x less the mean of its row, from the sums of its parts."""
    row, part = tl.program_id(0), tl.program_id(1)
    first = tl.load(start_row)
    mean = tl.sum(tl.load(sums + row * PARTS + tl.arange(0, PARTS)), 0) / COLUMNS
    for start in range(0, LENGTH, BLOCK):
        within = start + tl.arange(0, BLOCK)
        column = part * LENGTH + within
        inside = (within < LENGTH) & (column < COLUMNS)
        value = tl.load(x + (first + row) * COLUMNS + column, mask=inside, other=0.0)
        tl.store(y + row * COLUMNS + column, value - mean, mask=inside)


def centred(x, *, implementation, slices):
    """Rows less their means, in so many slices of rows; the slices are returned one by one."""
    rows, columns = x.shape
    bounds = np.linspace(0, rows, slices + 1).astype(int).tolist()
    found = []
    for first, end in itertools.pairwise(bounds):
        if end == first:
            continue
        start = jnp.array([first], jnp.int32)
        of = {"grid": (end - first, PARTS), "implementation": implementation, "num_stages": 1}
        of |= {"COLUMNS": columns, "PARTS": PARTS, "LENGTH": cdiv(columns, PARTS), "BLOCK": BLOCK}
        (sums,) = launch(sums_kernel, x, start, outputs=[like(x, (end - first, PARTS))], **of)
        found += launch(centre_kernel, x, start, sums, outputs=[like(x, (end - first, columns))], **of)
    return found


def slice_figures(counted: Counted, slices: int) -> Mapping[str, float]:
    """Device memory's bytes: x and y once, and x again unless a slice of it stays in the device's second-level cache."""
    rows, columns = counted.size
    whole = 4 * rows * columns
    again = 0 if whole / slices <= L2_SHARE * gpus.find(counted.kind).l2_cache else whole
    moved = 2 * whole + again
    return {"device_bytes": moved, "modelled_ms": modelled(moved, int(counted.figures["kernels"]))}


SLICES = {"all rows, then all again": {"slices": 1}, "five slices": {"slices": 5}, "sixteen slices": {"slices": 16}}


def powers(matrices, vectors, *, together):
    """Eight times v -> tanh(A v) for each matrix and its vector, so many matrices at a time."""

    def group(one):
        turn = lambda _, v: jnp.tanh(jnp.einsum("kij,kj->ki", one[0], v))
        return jax.lax.fori_loop(0, PASSES, turn, one[1])

    count = len(matrices)
    together = min(together, count)
    whole = count // together * together
    split = lambda array: array[:whole].reshape(-1, together, *array.shape[1:])
    found = jax.lax.map(group, (split(matrices), split(vectors))).reshape(whole, -1)
    return jnp.concatenate([found, group((matrices[whole:], vectors[whole:]))]) if whole < count else found


def powers_reference(matrices, vectors):
    for _ in range(PASSES):
        vectors = np.tanh(np.einsum("kij,kj->ki", matrices, vectors, optimize=True))
    return [vectors]


def draw_matrices(rng, count, width):
    return [normal(rng, count, width, width) / np.float32(width**0.5), normal(rng, count, width)]


def _centring(name: str, rows: int, columns: int) -> Case:
    return Case(
        name=name,
        variants=variants(centred, SLICES, slice_figures),
        better="five slices",
        draw=lambda rng, rows, columns: [normal(rng, rows, columns) + 1],
        reference=lambda x: [x - x.mean(1, dtype=np.float64, keepdims=True)],
        sizes={"check": (5, 4099), "cuda": (rows, columns)},
        bytes=lambda rows, columns: 8 * rows * columns,
    )


def picture(figure: Any, row: Mapping[str, Any]) -> None:
    """How fast an H200 reads from each level."""
    axes, model, cores = figure.subplots(), constants("nvidia-h200"), gpus.GPUS["h200"].cores
    megabytes = lambda each: f"{cores * each / 1e6:.0f} MB on the chip"
    levels = {
        f"shared memory, {megabytes(gpus.LIMITS[9, 0].shared_memory)}": model["shared_memory_bytes"] * cores * model["clock"],
        "L2 cache, 50 to 60 MB": model["l2_bytes"] * model["clock"],
        "device memory, 141 GB": model["read_memory"],
        "host memory through PCIe": model["link"],
    }
    rates = [rate / 1e12 for rate in levels.values()]
    axes.barh(range(len(rates)), rates, 0.6, color="#0072B2")
    for place, rate in enumerate(rates):
        axes.text(rate * 1.08, place, f"{rate:.2g} TB/s", va="center", fontsize=9)
    axes.set_yticks(range(len(rates)), list(levels), fontsize=9)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(0.01, 120)
    axes.set_xlabel("TB/s read by the whole chip: L2 and device memory measured (public), others on paper", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def answer() -> str:
    limits = gpus.LIMITS[9, 0]
    return f"{limits.registers:,} in registers, {limits.shared_memory // 4:,} in shared memory."


TOPIC = Topic(
    name="memory_hierarchy",
    what="reused data stay close: registers, shared memory, caches",
    text=__doc__ or "",
    picture=picture,
    exercise="How many floats fit in the registers of one multiprocessor, and how many in its shared memory?",
    answer=answer,
    kernel="`kernels/batch_norm_act/config.py` (`choose`) cuts the channels into slices that stay in the second-level cache "
    "between the two readings; `kernels/max_pool/triton.py` saves each maximum's position in a byte, so that the backward "
    "pass reads neither x nor y",
    cases=(
        product.case(
            "tiles of a product",
            (product.tiles(16, 16), product.tiles(32, 32), product.tiles(64, 64), product.tiles(128, 128, warps=8)),
            "asked_bytes",
        ),
        _centring("slices that fit the cache", 128, 2**18),
        _centring("an array that fits the cache", 128, 2**15),
        Case(
            name="eight products with each of 256 matrices",
            kind="xla",
            variants=variants(powers, {f"{count // 4} MB at a time": {"together": count} for count in (256, 64, 16, 4)}),
            figure=None,
            draw=draw_matrices,
            reference=powers_reference,
            sizes={"check": (9, 31), "cpu": (256, 256)},
            bytes=lambda count, width: 4 * count * (width * width + 2 * width),
            flops=lambda count, width: 2 * PASSES * count * width * width,
        ),
    ),
)
