"""Ask early, wait late.

In a kernel: Hopper and Ampere copy from device to shared memory without a thread that waits (cp.async, and TMA for whole
tiles). A loop in stages asks for the tiles of the next turns while it multiplies those of this one. In a program: JAX's
calls return before the device is done, so that the host prepares the next while the device computes; asking for a value
waits.

Stages pay in a product, whose tiles go to shared memory in any case, until their room keeps other blocks out. They do not
pay in a loop that uses each value once: the detour through shared memory is work, and other warps hide the wait already.
Not waiting pays as far as the host takes time between calls; a step that takes longer than its call hides it anyway, and
one program for all steps leaves nothing to hide.

Sources: NVIDIA, CUDA Programming Guide v13, "Asynchronous Data Copies" and "Asynchronous Execution"; NVIDIA, Hopper Tuning
Guide, "Tensor Memory Accelerator"; JAX documentation, "Asynchronous dispatch"; Shah et al. 2024, FlashAttention-3, arXiv
2407.08608.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from experiments.guide import product
from experiments.guide.topic import Case, Topic, Variant, normal, variants
from experiments.guide.unrolling import ROWS, column_sums, draw_columns

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


TOPIC = Topic(
    name="asynchronous_execution",
    what="ask early, wait late: copies in stages, calls that return at once",
    text=__doc__ or "",
    kernel="`kernels/linear_act/pallas.py` (`forward_kernel`) has a warpgroup that only fetches tiles, by TMA; the persistent "
    "kernels (`kernels/recurrent/triton.py`) have no host in the loop",
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
