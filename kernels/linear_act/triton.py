"""Matrix product with bias, activation and dropout as its epilogue, applied while the sums are in registers.

XLA fuses the epilogue into its own products; after one of cuBLAS's it takes another pass over the output. Floor of the forward
pass in bytes: x, w and y once; in operations 2 * rows * in * out. That of the backward kernel: dy and y read, the gradient
written.
"""

from __future__ import annotations

import jax.numpy as jnp
import triton
import triton.language as tl

from kernels.linear_act import config
from kernels.runtime import dispatch, precision
from kernels.runtime.launch import launch, like
from kernels.runtime.sizes import cdiv
from kernels.runtime.triton_math import activate, activation_gradient


@triton.jit
def threefry_rounds(x0, x1, A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, D: tl.constexpr):
    x0 += x1
    x1 = ((x1 << A) | (x1 >> (32 - A))) ^ x0
    x0 += x1
    x1 = ((x1 << B) | (x1 >> (32 - B))) ^ x0
    x0 += x1
    x1 = ((x1 << C) | (x1 >> (32 - C))) ^ x0
    x0 += x1
    x1 = ((x1 << D) | (x1 >> (32 - D))) ^ x0
    return x0, x1


@triton.jit
def random_bits(key0, key1, place):
    """The 32 bits that jax.random.bits gives this place (uint32, row-major) of an array: Threefry-2x32 (Salmon et al. 2011)."""
    key2 = key0 ^ key1 ^ 0x1BD11BDA
    x0 = tl.zeros_like(place) + key0
    x1 = place + key1
    x0, x1 = threefry_rounds(x0, x1, 13, 15, 26, 6)
    x0, x1 = threefry_rounds(x0 + key1, x1 + (key2 + 1), 17, 29, 16, 24)
    x0, x1 = threefry_rounds(x0 + key2, x1 + (key0 + 2), 13, 15, 26, 6)
    x0, x1 = threefry_rounds(x0 + key0, x1 + (key1 + 3), 17, 29, 16, 24)
    x0, x1 = threefry_rounds(x0 + key1, x1 + (key2 + 4), 13, 15, 26, 6)
    return (x0 + key2) ^ (x1 + (key0 + 5))


@triton.jit
def kept(state, row, column, OUTPUTS: tl.constexpr, THRESHOLD: tl.constexpr):
    """Which elements dropout keeps. `state` is the two words of the key and the number of this device's first row."""
    first_row = tl.load(state + 2)
    place = (first_row + row.to(tl.uint32))[:, None] * OUTPUTS + column.to(tl.uint32)[None, :]
    return random_bits(tl.load(state), tl.load(state + 1), place) >= tl.full((1, 1), THRESHOLD, tl.uint32)


@triton.jit
def forward_kernel(
    x, w, b, state, y, before,
    ROWS: tl.constexpr, INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, HAS_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr, SLOPE: tl.constexpr, KEEP: tl.constexpr, THRESHOLD: tl.constexpr, HAS_BEFORE: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    step = tl.arange(0, BLOCK_K)
    w_row = tl.full((1, 1), OUTPUTS, tl.int64)
    x_at = x + row[:, None] * INPUTS + step[None, :]
    w_at = w + step[:, None] * OUTPUTS + column[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for k in range(0, INPUTS, BLOCK_K):
        left = tl.load(x_at + k, mask=(row < ROWS)[:, None] & (step < INPUTS - k)[None, :], other=0.0)
        right = tl.load(w_at + k * w_row, mask=(step < INPUTS - k)[:, None] & (column < OUTPUTS)[None, :], other=0.0)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    inside = (row < ROWS)[:, None] & (column < OUTPUTS)[None, :]
    at = row[:, None] * OUTPUTS + column[None, :]
    if HAS_BIAS:
        total += tl.load(b + column, mask=column < OUTPUTS, other=0.0).to(tl.float32)[None, :]
    if HAS_BEFORE:
        tl.store(before + at, total.to(before.dtype.element_ty), mask=inside)
    total = activate(total, ACTIVATION, SLOPE)
    if KEEP < 1:
        total = tl.where(kept(state, row, column, OUTPUTS, THRESHOLD), total / KEEP, 0.0)
    tl.store(y + at, total.to(y.dtype.element_ty), mask=inside)


@triton.jit
def backward_kernel(
    dy, seen, state, dz, db,
    ROWS: tl.constexpr, OUTPUTS: tl.constexpr, ACTIVATION: tl.constexpr, SLOPE: tl.constexpr,
    KEEP: tl.constexpr, THRESHOLD: tl.constexpr, HAS_BEFORE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    # `seen` is what the activation was applied to if HAS_BEFORE, else y
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for tile in range(TILES):
        row = (tl.program_id(0).to(tl.int64) * TILES + tile) * BLOCK_M + tl.arange(0, BLOCK_M)
        inside = (row < ROWS)[:, None] & (column < OUTPUTS)[None, :]
        at = row[:, None] * OUTPUTS + column[None, :]
        g = tl.load(dy + at, mask=inside, other=0.0).to(tl.float32)
        if KEEP < 1:
            g = tl.where(kept(state, row, column, OUTPUTS, THRESHOLD), g / KEEP, 0.0)
        if ACTIVATION is not None:
            value = tl.load(seen + at, mask=inside, other=0.0).to(tl.float32)
            if HAS_BEFORE:
                g *= activation_gradient(value, ACTIVATION, SLOPE)
            elif ACTIVATION == "tanh":
                value *= KEEP
                g *= 1.0 - value * value
            else:
                g *= activation_gradient(value, ACTIVATION, SLOPE)  # y has the sign of what it was applied to
        tl.store(dz + at, g.to(dz.dtype.element_ty), mask=inside)
        total += g
    tl.store(db + tl.program_id(0).to(tl.int64) * OUTPUTS + column, tl.sum(total, 0), mask=column < OUTPUTS)


def forward(x, w, b, state, implementation, static):
    (rows, inputs), outputs = x.shape, w.shape[1]
    chosen = config.choose(rows, inputs, outputs, x.dtype.itemsize, dispatch.device().cores)
    y = like(x, (rows, outputs))
    results = launch(
        forward_kernel,
        *(x, w, w if b is None else b, state),
        outputs=[y, y if static["HAS_BEFORE"] else like(x, (1,))],
        grid=(cdiv(rows, chosen.block_m), cdiv(outputs, chosen.block_n)),
        implementation=implementation,
        num_warps=chosen.num_warps,
        num_stages=chosen.num_stages,
        ROWS=rows,
        INPUTS=inputs,
        OUTPUTS=outputs,
        HAS_BIAS=b is not None,
        PRECISION=precision.way(x.dtype),
        BLOCK_M=chosen.block_m,
        BLOCK_N=chosen.block_n,
        BLOCK_K=chosen.block_k,
        **static,
    )
    return results if static["HAS_BEFORE"] else results[:1]


def backward(dy, seen, state, implementation, static):
    """The gradient of what the activation is applied to, and its sum over rows (float32)."""
    rows, outputs = dy.shape
    block_m, block_n, tiles = 32, 128, 4
    groups = cdiv(rows, block_m * tiles)
    dz, sums = launch(
        backward_kernel,
        *(dy, seen, state),
        outputs=[like(dy), like(dy, (groups, outputs), jnp.float32)],
        grid=(groups, cdiv(outputs, block_n)),
        implementation=implementation,
        ROWS=rows,
        OUTPUTS=outputs,
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        TILES=tiles,
        **static,
    )
    return [dz, jnp.sum(sums, 0)]
