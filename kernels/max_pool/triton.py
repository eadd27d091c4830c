"""Max pooling and its gradient: one program per tile of columns and channels of one row.

Forward reads x once from device memory (windows that overlap meet in the L1 and L2 caches) and writes the maximum and, in one
byte, where in the window it was. Backward computes each input element from the windows that cover it, so it needs no atomics
and no zeroed buffer: it reads dy and the positions and writes dx. Floor in bytes, with e bytes per element:
forward e * (inputs + outputs) + outputs, backward the same.
"""

from __future__ import annotations

import jax.numpy as jnp
import triton
import triton.language as tl

from kernels.max_pool import config
from kernels.runtime.launch import launch, like
from kernels.runtime.sizes import cdiv


@triton.jit
def forward_kernel(
    x, y, position,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, OUT_HEIGHT: tl.constexpr, OUT_WIDTH: tl.constexpr,
    WINDOW_H: tl.constexpr, WINDOW_W: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    TOP: tl.constexpr, LEFT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)  # of the output, over the whole batch; its columns and channels are one run of memory
    flat = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    valid = flat < OUT_WIDTH * CHANNELS
    top, left = (row % OUT_HEIGHT) * STRIDE_H - TOP, (flat // CHANNELS) * STRIDE_W - LEFT
    channel = flat % CHANNELS
    x += (row // OUT_HEIGHT).to(tl.int64) * (HEIGHT * WIDTH * CHANNELS)
    best = tl.full((BLOCK,), float("-inf"), tl.float32)
    # The first position inside the input: it stands where every element is minus infinity.
    best_at = tl.maximum(-top, 0) * WINDOW_W + tl.maximum(-left, 0)
    for a in tl.static_range(WINDOW_H):
        h = top + a
        x_row = x + h.to(tl.int64) * (WIDTH * CHANNELS)
        for b in tl.static_range(WINDOW_W):
            w = left + b
            inside = valid & (h >= 0) & (h < HEIGHT) & (w >= 0) & (w < WIDTH)
            value = tl.load(x_row + w * CHANNELS + channel, mask=inside, other=float("-inf")).to(tl.float32)
            wins = (value > best) | (value != value)
            best_at = tl.where(wins, a * WINDOW_W + b, best_at)
            best = tl.where(wins, value, best)
    out = row.to(tl.int64) * (OUT_WIDTH * CHANNELS)
    tl.store(y + out + flat, best.to(y.dtype.element_ty), mask=valid)
    tl.store(position + out + flat, best_at.to(tl.uint8), mask=valid)


@triton.jit
def backward_kernel(
    dy, position, dx,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, OUT_HEIGHT: tl.constexpr, OUT_WIDTH: tl.constexpr,
    WINDOW_H: tl.constexpr, WINDOW_W: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    TOP: tl.constexpr, LEFT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)  # of the input, over the whole batch
    flat = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    valid = flat < WIDTH * CHANNELS
    h, w = row % HEIGHT + TOP, flat // CHANNELS + LEFT
    channel = flat % CHANNELS
    start = (row // HEIGHT).to(tl.int64) * OUT_HEIGHT  # the first row of the image's output
    total = tl.zeros((BLOCK,), tl.float32)
    # The windows that cover h begin at i, i - 1, ...: no more than the window's size over the stride.
    for earlier_h in tl.static_range((WINDOW_H + STRIDE_H - 1) // STRIDE_H):
        i = h // STRIDE_H - earlier_h
        a = h - i * STRIDE_H
        out_row = (start + i) * (OUT_WIDTH * CHANNELS)
        for earlier_w in tl.static_range((WINDOW_W + STRIDE_W - 1) // STRIDE_W):
            j = w // STRIDE_W - earlier_w
            b = w - j * STRIDE_W
            inside = valid & (i >= 0) & (i < OUT_HEIGHT) & (a < WINDOW_H) & (j >= 0) & (j < OUT_WIDTH) & (b < WINDOW_W)
            at = j * CHANNELS + channel
            chosen = tl.load(position + out_row + at, mask=inside, other=255).to(tl.int32) == a * WINDOW_W + b
            total += tl.where(inside & chosen, tl.load(dy + out_row + at, mask=inside, other=0).to(tl.float32), 0)
    tl.store(dx + row.to(tl.int64) * (WIDTH * CHANNELS) + flat, total.to(dx.dtype.element_ty), mask=valid)


def forward(x, window, strides, pads, implementation):
    """The maxima, and where in its window each is."""
    height, width = ((n + sum(p) - w) // s + 1 for n, p, w, s in zip(x.shape[1:3], pads, window, strides, strict=True))
    out = (x.shape[0], height, width, x.shape[3])
    outputs = [like(x, out), like(x, out, jnp.uint8)]
    return _launch(forward_kernel, (x,), outputs, x.shape, out, out, window, strides, pads, implementation)


def backward(dy, position, size, window, strides, pads, implementation):
    """The gradient of an input of this height and width."""
    shape = (dy.shape[0], *size, dy.shape[3])
    outputs = [like(dy, shape)]
    return _launch(backward_kernel, (dy, position), outputs, shape, dy.shape, shape, window, strides, pads, implementation)


def _launch(kernel, inputs, outputs, shape, out, rows_of, window, strides, pads, implementation):
    """`rows_of`: the shape whose rows the programs share out."""
    run = rows_of[2] * rows_of[3]
    chosen = config.choose(run)
    return launch(
        kernel,
        *inputs,
        outputs=outputs,
        grid=(rows_of[0] * rows_of[1], cdiv(run, chosen.block)),
        implementation=implementation,
        num_warps=chosen.num_warps,
        HEIGHT=shape[1],
        WIDTH=shape[2],
        CHANNELS=shape[3],
        OUT_HEIGHT=out[1],
        OUT_WIDTH=out[2],
        WINDOW_H=window[0],
        WINDOW_W=window[1],
        STRIDE_H=strides[0],
        STRIDE_W=strides[1],
        TOP=pads[0][0],
        LEFT=pads[1][0],
        BLOCK=chosen.block,
    )
