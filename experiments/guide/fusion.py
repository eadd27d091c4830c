"""An array that one kernel writes and the next reads passes through device memory twice.

A chain of operations on the same elements is memory-bound when each is a kernel of its own: every kernel reads its
operands and writes its result, and each launch adds a few microseconds. One kernel for the chain reads the input once,
keeps intermediate values in registers, and writes the result.

Fusion pays for elementwise work, for a reduction at the end of it, and for the operations that follow a matrix product.
XLA fuses by itself within one jax.jit, but not across operations that were compiled separately, and not into every
product. It does not pay where the fused kernel must recompute what it could have read: a window of 31 values that
computes each value's exponential again does 31 times the arithmetic.

Sources: NVIDIA, CUDA C++ Best Practices Guide, "Memory Optimizations"; NVIDIA, CUDA C++ Programming Guide 12, "Arithmetic
Instructions" (16 special functions per cycle and multiprocessor at compute capability 9.0; not looked up in the restructured
guide of version 13); Snider and Liang 2023, Operator fusion in XLA, arXiv 2301.13062; Dao et al. 2022, FlashAttention, arXiv
2205.14135.
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

from experiments.guide.evidence import modelled
from experiments.guide.topic import Case, Counted, Topic, normal, variants
from experiments.measuring.device_model import constants
from kernels.runtime import dispatch
from kernels.runtime.launch import launch, like
from kernels.runtime.sizes import cdiv, power_of_two

BLOCK = 1024
BOX = {"fc": "#CFE3F1", "ec": "#0072B2"}  # of the picture


@triton.jit
def affine_kernel(x, w, b, y, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """y = x w + b, w and b a value for each column."""
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    inside = column < COLUMNS
    value = tl.load(x + row * COLUMNS + column, mask=inside, other=0.0)
    value = value * tl.load(w + column, mask=inside, other=0.0) + tl.load(b + column, mask=inside, other=0.0)
    tl.store(y + row * COLUMNS + column, value, mask=inside)


@triton.jit
def silu_kernel(x, y, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    value = tl.load(x + row * COLUMNS + column, mask=column < COLUMNS, other=0.0)
    tl.store(y + row * COLUMNS + column, value / (1.0 + tl.exp(-value)), mask=column < COLUMNS)


@triton.jit
def row_sums_kernel(x, y, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    value = tl.load(x + row * COLUMNS + column, mask=column < COLUMNS, other=0.0)
    tl.store(y + row, tl.sum(value, 0))


@triton.jit
def fused_kernel(x, w, b, y, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """The three above in one."""
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    inside = column < COLUMNS
    value = tl.load(x + row * COLUMNS + column, mask=inside, other=0.0)
    value = value * tl.load(w + column, mask=inside, other=0.0) + tl.load(b + column, mask=inside, other=0.0)
    value = value / (1.0 + tl.exp(-value))
    tl.store(y + row, tl.sum(tl.where(inside, value, 0.0), 0))


@triton.jit
def window_kernel(x, y, SIZE: tl.constexpr, TAPS: tl.constexpr, POWERS: tl.constexpr, BLOCK: tl.constexpr):
    """y[i] is the sum of TAPS neighbours from i on; of their exponentials where POWERS."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for tap in tl.static_range(TAPS):
        value = tl.load(x + i + tap, mask=i + tap < SIZE, other=float("-inf") if POWERS else 0.0)
        total += tl.exp(value) if POWERS else value
    tl.store(y + i, total, mask=i < SIZE)


@triton.jit
def exp_kernel(x, y, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, tl.exp(tl.load(x + i, mask=i < SIZE)), mask=i < SIZE)


def chain(x, w, b, *, implementation, one):
    rows, columns = x.shape
    launch_rows = functools.partial(
        launch, grid=(rows,), implementation=implementation, ROWS=rows, COLUMNS=columns, BLOCK=power_of_two(columns)
    )
    if one:
        return launch_rows(fused_kernel, x, w, b, outputs=[like(x, (rows,))])
    (y,) = launch_rows(affine_kernel, x, w, b, outputs=[like(x)])
    (y,) = launch_rows(silu_kernel, y, outputs=[like(x)])
    return launch_rows(row_sums_kernel, y, outputs=[like(x, (rows,))])


def windows(x, *, implementation, taps, one):
    of = {"grid": (cdiv(x.size, BLOCK),), "implementation": implementation, "SIZE": x.size, "BLOCK": BLOCK}
    if not one:
        (x,) = launch(exp_kernel, x, outputs=[like(x)], **of)
    return launch(window_kernel, x, outputs=[like(x)], TAPS=taps, POWERS=one, **of)


def chain_bytes(counted: Counted, **_: Any) -> dict[str, float]:
    rows, columns = counted.size
    one = counted.figures["kernels"] == 1
    moved = 4 * (rows * columns * (1 if one else 5) + 2 * columns + rows)
    return {"bytes": moved, "modelled_ms": modelled(moved, int(counted.figures["kernels"]))}


def window_figures(counted: Counted, **_: Any) -> dict[str, float]:
    """A kernel takes the longer of its bytes' time and its special functions' time, and its launch."""
    (size,) = counted.size
    kernels = int(counted.figures["kernels"])
    per_element = counted.figures["special"] * counted.figures["threads"] / BLOCK
    model = constants("nvidia-h200")
    rate = model["special_functions"] * dispatch.H200.cores * model["clock"]
    # Where there are two kernels, the special functions are all in the first; the other has its bytes alone.
    first = max(modelled(8 * size, 1), 1e3 * (size * per_element / rate + model["launch"]))
    time = first + (kernels - 1) * modelled(8 * size, 1)
    return {"bytes": 8 * size * kernels, "special_per_element": per_element, "modelled_ms": time}


def steps(x, w, b, *, apart):
    """The sum over a row of a few operations; `apart`: with a barrier after each, so that none are fused."""
    hold = jax.lax.optimization_barrier if apart else lambda v: v
    y = hold(x * w)
    y = hold(y + b)
    y = hold(y * hold(jax.nn.sigmoid(y)))
    return jnp.sum(hold(y * y), axis=1)


_APART = (jax.jit(jnp.multiply), jax.jit(jnp.add), jax.jit(jax.nn.sigmoid), jax.jit(lambda y: jnp.sum(y, axis=1)))
_ONE = jax.jit(functools.partial(steps, apart=False))


def dispatched(x, w, b, *, one):
    """The same from Python, each operation compiled by itself, as without a jax.jit around them."""
    x, w, b = (jax.device_put(v) for v in (x, w, b))
    if one:
        return _ONE(x, w, b)
    times, plus, sigmoid, total = _APART
    y = plus(times(x, w), b)
    y = times(y, sigmoid(y))
    return total(times(y, y))


def squares_reference(x, w, b):
    return [np.square(silu(x, w, b)).sum(1)]


def read_bytes(rows, columns):
    return 4 * rows * columns


def draw_rows(rng, rows, columns):
    return [normal(rng, rows, columns), normal(rng, columns), normal(rng, columns)]


def silu(x, w, b):
    y = x.astype(np.float64) * w + b
    return y / (1 + np.exp(-y))


def window_reference(x, taps):
    power = np.concatenate([np.exp(x.astype(np.float64)), np.zeros(taps - 1)])
    return [np.lib.stride_tricks.sliding_window_view(power, taps).sum(1)]


def _window_case(taps: int) -> Case:
    return Case(
        name=f"a window of {taps}, computed again",
        variants=variants(
            windows,
            {"two kernels": {"taps": taps, "one": False}, "one, each value again": {"taps": taps, "one": True}},
            window_figures,
        ),
        reference=functools.partial(window_reference, taps=taps),
        sizes={"check": (5_003,), "cuda": (2**25,)},
        bytes=lambda size: 8 * size,
    )


def picture(figure: Any, row: Mapping[str, Any]) -> None:
    """Passes over device memory of a chain, and where computing again costs more than reading again."""
    drawn, curve = figure.subplots(1, 2, width_ratios=(1, 1.1))
    for y, head, kernels in ((1, "three kernels", ("x w + b", "silu", "row sums")), (0, "one kernel", ("all three",))):
        drawn.text(-0.1, y + 0.36, f"{head}: the array crosses {2 * len(kernels) - 1}×", fontsize=9)
        for n, name in enumerate(kernels):
            drawn.text(1.05 * n + 0.55, y + 0.12, name, ha="center", va="center", fontsize=9, bbox=BOX)
            drawn.annotate("", (1.05 * n + 0.42, y + 0.04), (1.05 * n + 0.2, y - 0.26), arrowprops={"arrowstyle": "->"})
            if n + 1 < len(kernels):
                drawn.annotate("", (1.05 * n + 0.9, y - 0.26), (1.05 * n + 0.68, y + 0.04), arrowprops={"arrowstyle": "->"})
        drawn.axhspan(y - 0.36, y - 0.26, color="#D9D9D9")
        drawn.text(3.1, y - 0.31, "device memory", ha="right", va="center", fontsize=8)
    drawn.set(xlim=(-0.15, 3.2), ylim=(-0.45, 1.55))
    drawn.axis("off")
    model, (size,) = constants("nvidia-h200"), row["cases"][-1]["size"]
    rate = model["special_functions"] * dispatch.H200.cores * model["clock"]
    taps = list(range(1, 41))
    again = [1e3 * model["launch"] + max(modelled(8 * size, 1) - 1e3 * model["launch"], 1e3 * size * n / rate) for n in taps]
    curve.plot(taps, again, color="#0072B2", label="one kernel, each value again")
    curve.plot(taps, [2 * modelled(8 * size, 1)] * len(taps), color="#7F7F7F", label="two kernels")
    for case in row["cases"]:
        if case["name"].startswith("a window of"):
            for variant, colour in (("two kernels", "#7F7F7F"), ("one, each value again", "#0072B2")):
                found = case["variants"][variant]["compiled"]
                curve.plot(int(case["name"].split()[3].rstrip(",")), found["modelled_ms"], "o", color=colour)
    curve.set_xlabel("values of a window, each through an exponential", fontsize=9)
    curve.set_ylabel("ms, modelled for an H200", fontsize=9)
    curve.set_ylim(0)
    curve.grid(color="#D9D9D9", linewidth=0.6)
    curve.legend(fontsize=9)


def answer() -> str:
    model = constants("nvidia-h200")
    rate = model["special_functions"] * dispatch.H200.cores * model["clock"]
    return f"{int(16 * rate / model['memory'])}: as long as the 16 bytes that two kernels read and write per value."


TOPIC = Topic(
    name="fusion",
    what="one kernel for a chain of operations",
    text=__doc__ or "",
    picture=picture,
    exercise="How many exponentials may a fused kernel compute per value before two kernels that compute one are faster?",
    answer=answer,
    kernel="`kernels/lenet5/triton.py` is a whole network in one launch, `kernels/mlp/triton.py` two products, "
    "`kernels/linear_act/triton.py` a product with its bias and activation",
    cases=(
        Case(
            name="operation by operation, XLA",
            kind="xla",
            variants=variants(steps, {"apart": {"apart": True}, "fused": {"apart": False}}),
            draw=draw_rows,
            reference=squares_reference,
            sizes={"check": (37, 1001), "cuda": (16_384, 2048)},
            bytes=read_bytes,
        ),
        Case(
            name="without jax.jit around the chain",
            kind="host",
            variants=variants(dispatched, {"each operation by itself": {"one": False}, "one jax.jit": {"one": True}}),
            figure=None,
            draw=draw_rows,
            reference=squares_reference,
            sizes={"check": (37, 1001), "cpu": (4096, 1024), "cuda": (16_384, 2048)},
            bytes=read_bytes,
        ),
        Case(
            name="a chain and its sum, by hand",
            variants=variants(chain, {"three kernels": {"one": False}, "one kernel": {"one": True}}, chain_bytes),
            draw=draw_rows,
            reference=lambda x, w, b: [silu(x, w, b).sum(1)],
            sizes={"check": (37, 1001), "cuda": (16_384, 2048)},
            bytes=read_bytes,
        ),
        _window_case(3),
        _window_case(31),
    ),
)
