"""Request early, wait late.

In a kernel: Ampere and Hopper copy from device to shared memory without blocking a thread (cp.async, and TMA for whole
tiles). A loop in stages requests the tiles of the next iterations while it multiplies those of the current one. In a
program: JAX's calls return before the device is done, so the host prepares the next step while the device computes;
reading a value waits for it.

Stages pay in a matrix product, whose tiles go to shared memory in any case, until they take the space of another block.
They do not pay in a loop that uses each value once: the detour through shared memory is extra work, and other warps
hide the wait already. On the host, not waiting saves the time between calls; a step that takes longer than its call
hides that anyway, and one program for all steps leaves nothing to hide.

Sources: NVIDIA, CUDA Programming Guide v13, "Asynchronous Data Copies" and "Asynchronous Execution"; NVIDIA, Hopper Tuning
Guide, "Tensor Memory Accelerator"; JAX documentation, "Asynchronous dispatch"; Shah et al. 2024, FlashAttention-3, arXiv
2407.08608.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.guide import product
from experiments.guide.topic import Case, Topic, Variant, normal, variants
from experiments.guide.unrolling import ROWS, column_sums, draw_columns
from kernels.runtime import gpus

STEPS = 100
STAGES = {"1 stage": 1, "3 stages": 3}


@jax.jit
def step(x, w):
    return jnp.tanh(x @ w + 0.5)


@jax.jit
def all_steps(x, w):
    return jax.lax.fori_loop(0, STEPS, lambda _, v: jnp.tanh(v @ w + 0.5), x)


def steps(x, w, *, wait):
    x, w = jax.device_put(x), jax.device_put(w)
    for _ in range(STEPS):
        x = step(x, w)
        if wait:
            x.block_until_ready()
    return x


def steps_reference(x, w):
    x = x.astype(np.float64)
    for _ in range(STEPS):
        x = np.tanh(x @ w + 0.5)
    return [x]


def _waits(name: str, width: int) -> Case:
    return Case(
        name=name,
        kind="host",
        variants=(
            *variants(steps, {"waiting for each": {"wait": True}, "waiting once": {"wait": False}}),
            Variant("one program", lambda x, w: all_steps(jax.device_put(x), jax.device_put(w))),
        ),
        better="waiting once",
        figure=None,
        draw=lambda rng, rows, width: [normal(rng, rows, width), normal(rng, width, width) * np.float32(0.5 / width**0.5)],
        reference=steps_reference,
        sizes={"check": (3, 17), "cpu": (32, width), "cuda": (32, width)},
        bytes=lambda rows, width: 4 * (2 * rows * width + width * width),
        flops=lambda rows, width: 2 * STEPS * rows * width * width,
    )


def picture(figure: Any, row: Mapping[str, Any]) -> None:
    """A product's loop over tiles, schematic: with one stage the copy of a tile and its product alternate."""
    axes, tiles = figure.subplots(), 5
    found = next(case for case in row["cases"] if case["name"] == "stages of a product")["variants"]
    heights, labels = [], []
    for place, name in enumerate(("1 stage", "3 stages")):
        ahead, y = found[name]["compiled"]["bytes_ahead"], -3 * place
        stages = int(name.split()[0])
        copied = computed = 0.0
        ends: list[float] = []
        for tile in range(tiles):
            # A copy begins when the one before has ended, and the buffer is free that it goes to.
            begin = max(copied, ends[tile - stages] if tile >= stages else 0.0)
            copied = begin + 1
            axes.barh(y, 1, 0.8, left=begin, color="#D55E00", edgecolor="white")
            axes.text(begin + 0.5, y, f"copy {tile + 1}", ha="center", va="center", fontsize=8, color="white")
            computed = max(computed, copied)
            axes.barh(y - 1, 1, 0.8, left=computed, color="#0072B2", edgecolor="white")
            axes.text(computed + 0.5, y - 1, f"multiply {tile + 1}", ha="center", va="center", fontsize=8, color="white")
            computed += 1
            ends.append(computed)
        heights.append(y - 0.5)
        labels.append(f"{name}:\n{ahead / 1024:.0f} KB prefetched")
    axes.set_yticks(heights, labels, fontsize=9)
    axes.set_xlabel("time (schematic: a copy waits as long as a product takes)", fontsize=9)
    axes.set_xticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)


def answer() -> str:
    each = 2 * 64 * (128 + 256)
    stages = gpus.limits((9, 0)).block_shared_memory // each
    return f"{stages}, of {each // 1024} KB each; a second block then does not fit the multiprocessor."


TOPIC = Topic(
    name="asynchronous_execution",
    what="request early, wait late: copies in stages, calls that return at once",
    text=__doc__ or "",
    picture=picture,
    exercise="How many stages of 128 x 64 and 64 x 256 values in bfloat16 fit the shared memory of a block on an H200?",
    answer=answer,
    kernel="`kernels/linear_act/pallas.py` (`forward_kernel`) has a warpgroup that only fetches tiles by TMA; the persistent "
    "kernels (`kernels/recurrent/triton.py`) run their loop without the host",
    cases=(
        product.case(
            "stages of a product",
            tuple(
                product.tiles(128, 128, 64, warps=8, stages=n, label=f"{n} stage{'s' if n > 1 else ''}") for n in (1, 2, 3, 4)
            ),
            "bytes_ahead",
            better="3 stages",
        ),
        Case(
            name="stages where each value is used once",
            variants=variants(column_sums, {label: {"how": "constant", "stages": n} for label, n in STAGES.items()}),
            figure="instructions",
            draw=draw_columns,
            reference=lambda x, length: [x.sum(0, dtype=np.float64)],
            sizes={"check": (1_301,), "cuda": (2**19,)},
            bytes=lambda columns: 4 * columns * (ROWS + 1),
        ),
        _waits("a hundred small steps", 32),
        _waits("a hundred large steps", 1024),
    ),
)
