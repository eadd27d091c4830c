"""A plain matrix product in tiles, which several topics take apart: how large a tile, how many at once, how far ahead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import triton
import triton.language as tl

from experiments.guide.topic import Case, Counted, Variant, normal, variants
from kernels.runtime import dispatch
from kernels.runtime.launch import launch, like
from kernels.runtime.sizes import cdiv


@triton.jit
def product_kernel(
    a, b, c, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, HIGH: tl.constexpr, WIDE: tl.constexpr, DEEP: tl.constexpr
):  # fmt: skip
    """c = a b, a tile of HIGH x WIDE for each program, DEEP columns of a at a time."""
    row = tl.program_id(0) * HIGH + tl.arange(0, HIGH)
    column = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    total = tl.zeros((HIGH, WIDE), tl.float32)
    for start in range(0, K, DEEP):
        k = start + tl.arange(0, DEEP)
        left = tl.load(a + row[:, None] * K + k[None, :], mask=(row < M)[:, None] & (k < K)[None, :], other=0.0)
        right = tl.load(b + k[:, None] * N + column[None, :], mask=(k < K)[:, None] & (column < N)[None, :], other=0.0)
        total = tl.dot(left, right, total)
    inside = (row < M)[:, None] & (column < N)[None, :]
    tl.store(c + row[:, None] * N + column[None, :], total.to(c.dtype.element_ty), mask=inside)


def product(a, b, *, implementation, high, wide, deep=32, warps=4, stages=3):
    (m, k), n = a.shape, b.shape[1]
    of = {"M": m, "N": n, "K": k, "HIGH": high, "WIDE": wide, "DEEP": deep, "num_warps": warps, "num_stages": stages}
    grid = (cdiv(m, high), cdiv(n, wide))
    return launch(product_kernel, a, b, outputs=[like(a, (m, n))], grid=grid, implementation=implementation, **of)


def asked_bytes(m: int, k: int, n: int, high: int, wide: int, itemsize: int = 2) -> int:
    """Bytes that all blocks load of a and b together: each block reads its rows of a and its columns of b."""
    return itemsize * k * (cdiv(n, wide) * m + cdiv(m, high) * n)


def figures(counted: Counted, high: int, wide: int, deep: int, stages: int, warps: int) -> Mapping[str, float]:
    m, k, n = counted.size
    return {
        "asked_bytes": asked_bytes(m, k, n, high, wide),
        "busy_multiprocessors": min(counted.figures["blocks"], dispatch.H200.cores),
        "bytes_ahead": counted.figures["resident_blocks"] * (stages - 1) * 2 * deep * (high + wide),
    }


def tiles(high: int, wide: int, deep: int = 32, warps: int = 4, stages: int = 3, label: str = "") -> Variant:
    of: dict[str, Any] = {"high": high, "wide": wide, "deep": deep, "warps": warps, "stages": stages}
    return variants(product, {label or f"tiles {high} x {wide}": of}, figures)[0]


def case(name: str, variants_: tuple[Variant, ...], figure: str, **other: Any) -> Case:
    """A product of float16 matrices, [m, k] and [k, n]."""
    sizes = {"check": (70, 50, 45), "cuda": (4096, 4096, 4096)} | other.pop("sizes", {})
    return Case(
        name=name,
        variants=variants_,
        figure=figure,
        draw=lambda rng, m, k, n: [normal(rng, m, k, dtype=np.float16), normal(rng, k, n, dtype=np.float16)],
        reference=lambda a, b: [a.astype(np.float32) @ b.astype(np.float32)],
        sizes=sizes,
        bytes=lambda m, k, n: 2 * (m * k + k * n + m * n),
        flops=lambda m, k, n: 2 * m * k * n,
        dtype="float16",
        **other,
    )
