"""Fewer bits: half the bytes, and a multiple of the arithmetic.

float32 has 23 bits after the leading one, tf32 ten and bfloat16 seven, all with the same exponent range; float16 has
ten and a smaller range. An H200's tensor cores multiply float32 numbers only as tf32 (494 Tflop/s on paper), 16-bit
numbers twice as fast (989); both accumulate in float32. JAX multiplies float32 as tf32 on a GPU unless
`jax.default_matmul_precision` says otherwise; three passes of tf32 recover nearly all bits at a third of the rate. For
memory only the bytes count: bfloat16 halves those of every elementwise pass.

Lower precision pays in matrix products, and wherever memory is the limit. It costs digits, and does not pay for
accumulating sums: a bfloat16 sum stops growing at 256 times its terms. So keep sums, statistics, losses and the weights
that an optimizer updates in float32, and compute in bfloat16, as `--precision bfloat16` does here.

The errors below are relative to float64, computed on the CPU with operands rounded as the tensor cores round them.

Sources: NVIDIA, H100 Tensor Core GPU architecture whitepaper; NVIDIA, H200 data sheet; NVIDIA, CUDA Programming Guide
v13, "Floating-Point Computation"; JAX documentation, jax.default_matmul_precision; Micikevicius et al. 2018, Mixed
precision training, arXiv 1710.03740.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.guide import evidence
from experiments.guide.topic import Case, Counted, Topic, Variant, normal, variants
from experiments.measuring.clock import relative_error
from experiments.measuring.device_model import constants

BITS = {"tf32": 10, "bfloat16": 7}  # after the leading one


def rounded(x, bits):
    """float32 values with so many bits after the leading one."""
    return jax.lax.reduce_precision(jnp.asarray(x), 8, bits)


def product(a, b, *, how):
    """a b with operands as a tensor core takes them, added up in float32."""
    exact = functools.partial(jnp.matmul, precision="highest")
    if how != "three passes of tf32":
        return exact(rounded(a, BITS[how]), rounded(b, BITS[how]))
    high = rounded(a, BITS["tf32"]), rounded(b, BITS["tf32"])
    low = rounded(a - high[0], BITS["tf32"]), rounded(b - high[1], BITS["tf32"])
    return exact(*high) + (exact(high[0], low[1]) + exact(low[0], high[1]))


def error(counted: Counted) -> float:
    """Of the variant at the size of the check, on the inputs of seed 0, against float64."""
    inputs = counted.case.draw(np.random.default_rng(0), *counted.case.sizes["check"])
    (variant,) = (v for v in counted.case.variants if v.name == counted.variant)
    assert variant.call is not None
    reference = [np.asarray(x, np.float64) for x in counted.case.reference(*inputs)]
    return relative_error(evidence.outputs(jax.jit(variant.call)(*inputs)), reference)


def product_figures(counted: Counted, how: str) -> Mapping[str, float]:
    m, k, n = counted.size
    model, item = constants(counted.kind), 2 if how == "bfloat16" else 4
    passes, peak = (3 if how.startswith("three") else 1), model["bfloat16" if how == "bfloat16" else "float32"]
    busy = max(2 * m * k * n * passes / peak, item * (m * k + k * n + m * n) / model["memory"])
    return {"relative_error": error(counted), "modelled_ms": 1e3 * (busy + model["launch"])}


def scaled(x, *, dtype):
    """2 x + 1 in a dtype; x is given in it."""
    return jnp.asarray(x, dtype) * 2 + 1


def total(x, *, dtype):
    """The sum of each row, one column after another, added up in a dtype."""
    add = lambda total, column: (total + column.astype(dtype), None)
    return jax.lax.scan(add, jnp.zeros(x.shape[0], dtype), jnp.asarray(x).T)[0].astype(jnp.float32)


HOWS = ("three passes of tf32", "tf32", "bfloat16")


def picture(figure: Any, row: Mapping[str, Any]) -> None:
    """The error of each way to multiply over its modelled time."""
    axes = figure.subplots()
    case = next(case for case in row["cases"] if case["name"] == "a large product")
    for name, variant in case["variants"].items():
        found = variant["compiled"]
        axes.loglog(found["modelled_ms"], found["relative_error"], "o", color="#0072B2", markersize=9)
        axes.annotate(name, (found["modelled_ms"], found["relative_error"]), (8, 8), textcoords="offset points", fontsize=10)
    axes.set_xlabel("ms, modelled for an H200, of a product of 8,192 x 8,192 matrices", fontsize=9)
    axes.set_ylabel("relative error of a smaller one", fontsize=9)
    axes.margins(0.35)
    axes.grid(color="#D9D9D9", linewidth=0.6)


def answer() -> str:
    ones = jnp.ones((1, 1000), jnp.float32)
    return f"{float(total(ones, dtype=jnp.bfloat16)[0]):g}: 257 is not a bfloat16 number, and is rounded to 256."


def _sum_variant(name: str, dtype: Any) -> Variant:
    return Variant(name, functools.partial(total, dtype=dtype), lambda counted: {"relative_error": error(counted)})


TOPIC = Topic(
    name="precision",
    what="float32, tf32, bfloat16: fewer digits for fewer bytes and a higher rate",
    text=__doc__ or "",
    kernel="`kernels/runtime/precision.py` reads `jax.default_matmul_precision`, and the kernels multiply accordingly; "
    "`kernels/recurrent/persistent.py` multiplies float32 in three passes of tf32",
    picture=picture,
    exercise="What is the sum of 1,000 ones that are added in bfloat16, one after another?",
    answer=answer,
    cases=(
        Case(
            name="a large product",
            kind="host",
            variants=variants(product, {how: {"how": how} for how in HOWS}, product_figures),
            figure="modelled_ms",
            draw=lambda rng, m, k, n: [normal(rng, m, k), normal(rng, k, n)],
            reference=lambda a, b: [a.astype(np.float64) @ b],
            sizes={"check": (65, 129, 33), "compile": (8192, 8192, 8192)},
            dtype="bfloat16",
        ),
        Case(
            name="an elementwise pass, XLA",
            kind="xla",
            variants=(
                Variant("float32", lambda x, y: scaled(x, dtype=jnp.float32)),
                Variant("bfloat16", lambda x, y: scaled(y, dtype=jnp.bfloat16)),
            ),
            figure="modelled_ms",
            draw=lambda rng, size: [x := normal(rng, size), x.astype(jnp.bfloat16)],
            reference=lambda x, y: [2 * x.astype(np.float64) + 1],
            sizes={"check": (1_001,), "cpu": (2**22,), "cuda": (2**25,)},
            dtype="bfloat16",
        ),
        Case(
            name="a sum of 128 terms",
            kind="host",
            variants=(_sum_variant("added up in float32", jnp.float32), _sum_variant("added up in bfloat16", jnp.bfloat16)),
            figure="relative_error",
            draw=lambda rng, rows, columns: [np.abs(normal(rng, rows, columns))],
            reference=lambda x: [x.sum(1, dtype=np.float64)],
            sizes={"check": (64, 128)},
            dtype="bfloat16",
        ),
    ),
)
