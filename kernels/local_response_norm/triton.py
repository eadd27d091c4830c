"""Local response normalization, forward and backward in one pass each: a tile holds whole rows of channels.

The windows' elements are read again from the L1 cache, not from device memory. The only residual is x: with
d = k + alpha * window(x**2) and t = dy * x * d**(-beta - 1), the gradient is dy * d**-beta - 2 * alpha * beta * x * window'(t),
where window' is the mirrored window. Floor in passes over an array like x: forward 2 (x, y), backward 3 (x, dy, dx).
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.local_response_norm import config
from kernels.runtime.launch import launch, like
from kernels.runtime.sizes import cdiv


@triton.jit
def denominator(
    x, start, channel, valid, CHANNELS: tl.constexpr, BEFORE: tl.constexpr, AFTER: tl.constexpr,
    ALPHA: tl.constexpr, K: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    total = tl.zeros((BLOCK_ROWS, BLOCK), tl.float32)
    for offset in tl.static_range(-BEFORE, AFTER + 1):
        near = channel + offset
        inside = valid & ((near >= 0) & (near < CHANNELS))[None, :]
        value = tl.load(x + start + near[None, :], mask=inside, other=0.0).to(tl.float32)
        total += value * value
    return K + ALPHA * total


@triton.jit
def negative_power(d, BETA: tl.constexpr):
    if BETA == 0.75:
        root = tl.rsqrt(d)
        power = root * tl.sqrt(root)
    else:
        power = tl.exp2(-BETA * tl.log2(d))
    return power


@triton.jit
def forward_kernel(
    x, y, ROWS: tl.constexpr, CHANNELS: tl.constexpr, BEFORE: tl.constexpr, AFTER: tl.constexpr,
    ALPHA: tl.constexpr, BETA: tl.constexpr, K: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    channel = tl.arange(0, BLOCK)
    valid = (row < ROWS)[:, None] & (channel < CHANNELS)[None, :]
    start = row[:, None] * CHANNELS
    d = denominator(x, start, channel, valid, CHANNELS, BEFORE, AFTER, ALPHA, K, BLOCK_ROWS, BLOCK)
    at = start + channel[None, :]
    result = tl.load(x + at, mask=valid, other=0.0).to(tl.float32) * negative_power(d, BETA)
    tl.store(y + at, result.to(y.dtype.element_ty), mask=valid)


@triton.jit
def backward_kernel(
    x, dy, dx, ROWS: tl.constexpr, CHANNELS: tl.constexpr, BEFORE: tl.constexpr, AFTER: tl.constexpr,
    ALPHA: tl.constexpr, BETA: tl.constexpr, K: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    channel = tl.arange(0, BLOCK)
    valid = (row < ROWS)[:, None] & (channel < CHANNELS)[None, :]
    start = row[:, None] * CHANNELS
    d = denominator(x, start, channel, valid, CHANNELS, BEFORE, AFTER, ALPHA, K, BLOCK_ROWS, BLOCK)
    at = start + channel[None, :]
    value = tl.load(x + at, mask=valid, other=0.0).to(tl.float32)
    g = tl.load(dy + at, mask=valid, other=0.0).to(tl.float32)
    direct = g * negative_power(d, BETA)
    term = tl.where(valid, direct * value / d, 0.0)
    from_neighbours = tl.zeros((BLOCK_ROWS, BLOCK), tl.float32)
    # An element is in the windows of the outputs from AFTER before it to BEFORE after it. Powers are dear, so each is taken
    # once and handed to its neighbours within the tile.
    for offset in tl.static_range(-AFTER, BEFORE + 1):
        near = channel + offset
        inside = ((near >= 0) & (near < CHANNELS))[None, :]
        index = tl.broadcast_to(tl.minimum(tl.maximum(near, 0), BLOCK - 1)[None, :], (BLOCK_ROWS, BLOCK))
        from_neighbours += tl.where(inside, tl.gather(term, index, 1), 0.0)
    result = direct - (2.0 * ALPHA * BETA) * value * from_neighbours
    tl.store(dx + at, result.to(dx.dtype.element_ty), mask=valid)


def forward(x, size, alpha, beta, k, implementation):
    return _launch(forward_kernel, x, size=size, alpha=alpha, beta=beta, k=k, implementation=implementation)


def backward(x, dy, size, alpha, beta, k, implementation):
    return _launch(backward_kernel, x, dy, size=size, alpha=alpha, beta=beta, k=k, implementation=implementation)


def _launch(kernel, x, *dy, size, alpha, beta, k, implementation):
    channels = x.shape[-1]
    rows = x.size // channels
    block_rows, block, chosen = config.choose(channels)
    return launch(
        kernel,
        x,
        *dy,
        outputs=[like(x)],
        grid=(cdiv(rows, block_rows),),
        implementation=implementation,
        num_warps=chosen.num_warps,
        ROWS=rows,
        CHANNELS=channels,
        BEFORE=size // 2,
        AFTER=(size - 1) // 2,
        ALPHA=float(alpha),
        BETA=float(beta),
        K=float(k),
        BLOCK_ROWS=block_rows,
        BLOCK=block,
    )
