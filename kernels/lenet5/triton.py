"""LeNet-5 in one launch, forward: each block takes 16 images through the network.

XLA launches a dozen kernels, each too short to fill the device. Here the feature maps of a block pass from layer to layer
through a few kilobytes that stay in its caches, and the convolutions are small matrix products over patches that are gathered
as they are loaded. Pooling takes the maximum of the four products that meet in a window. Floor in bytes: the images once; at
batch 4096 that takes microseconds, and in float32 arithmetic (0.83 MFLOP per image) is the limit. Under differentiation XLA's
code runs, forward and backward.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.lenet5 import config
from kernels.runtime import precision
from kernels.runtime.launch import launch, like
from kernels.runtime.sizes import cdiv, power_of_two

IMAGES = 16  # of a block: the least number of rows of a matrix product


@triton.jit
def pooled_convolution(
    image, w, b, first, SIZE: tl.constexpr, IN: tl.constexpr, OUT: tl.constexpr, POOLED: tl.constexpr, PRECISION: tl.constexpr,
    POSITIONS: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    """relu(max over 2x2 of a 5x5 convolution of one image [SIZE, SIZE, IN]) from position `first` on: [POSITIONS, 16]."""
    position, tap, feature = first + tl.arange(0, POSITIONS), tl.arange(0, TAPS), tl.arange(0, 16)
    known = (tap < 25 * IN)[:, None] & (feature < OUT)[None, :]
    weight = tl.load(w + tap[:, None] * OUT + feature[None, :], mask=known, other=0.0)
    top, left = 2 * (position // POOLED), 2 * (position % POOLED)
    at_tap = (tap // (5 * IN)) * (SIZE * IN) + tap % (5 * IN)  # columns and channels of a row of taps are one run of memory
    inside = (position < POOLED * POOLED)[:, None] & (tap < 25 * IN)[None, :]
    best = tl.full((POSITIONS, 16), float("-inf"), tl.float32)
    for offset in range(4):
        corner = ((top + offset // 2) * SIZE + left + offset % 2) * IN
        patch = tl.load(image + corner[:, None] + at_tap[None, :], mask=inside, other=0.0)
        total = tl.dot(patch, weight, input_precision=PRECISION)
        best = tl.where((total > best) | (total != total), total, best)
    best += tl.load(b + feature, mask=feature < OUT, other=0.0).to(tl.float32)[None, :]
    return tl.where(best < 0, 0.0, best)


@triton.jit
def dense(
    x_at, present, w, b, INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, STEP: tl.constexpr, BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """x @ w + b of 16 rows in memory: [16, BLOCK]."""
    step, unit = tl.arange(0, STEP), tl.arange(0, BLOCK)
    total = tl.zeros((16, BLOCK), tl.float32)
    for k in range(0, INPUTS, STEP):
        left = tl.load(x_at + k + step[None, :], mask=present[:, None] & (step < INPUTS - k)[None, :], other=0.0)
        inside = (step < INPUTS - k)[:, None] & (unit < OUTPUTS)[None, :]
        right = tl.load(w + (k + step)[:, None] * OUTPUTS + unit[None, :], mask=inside, other=0.0)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    return total + tl.load(b + unit, mask=unit < OUTPUTS, other=0.0).to(tl.float32)[None, :]


@triton.jit
def dense_on(x, w, b, INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, BLOCK_IN: tl.constexpr, BLOCK: tl.constexpr,
             PRECISION: tl.constexpr):  # fmt: skip
    """x @ w + b of rows [16, BLOCK_IN] at hand: [16, BLOCK]."""
    before, unit = tl.arange(0, BLOCK_IN), tl.arange(0, BLOCK)
    inside = (before < INPUTS)[:, None] & (unit < OUTPUTS)[None, :]
    right = tl.load(w + before[:, None] * OUTPUTS + unit[None, :], mask=inside, other=0.0)
    total = tl.dot(x.to(w.dtype.element_ty), right, input_precision=PRECISION)
    return total + tl.load(b + unit, mask=unit < OUTPUTS, other=0.0).to(tl.float32)[None, :]


@triton.jit
def forward_kernel(
    x, w0, b0, w1, b1, w2, b2, w3, b3, w4, b4, y, map1, map2,
    BATCH: tl.constexpr, IN: tl.constexpr, CLASSES: tl.constexpr, TAPS: tl.constexpr, BLOCK_CLASSES: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    feature = tl.arange(0, 16)
    map1 += block.to(tl.int64) * (196 * 6)  # of one image at a time
    map2 += block.to(tl.int64) * (16 * 400)
    last = tl.minimum(BATCH - block * 16, 16)
    for number in range(last):
        image = x + (block * 16 + number).to(tl.int64) * (1024 * IN)
        tl.debug_barrier()  # what the image before left in map1 has been read
        for start in range(0, 196, 64):
            first = pooled_convolution(image, w0, b0, start, 32, IN, 6, 14, PRECISION, 64, TAPS)
            position = start + tl.arange(0, 64)
            inside = (position < 196)[:, None] & (feature < 6)[None, :]
            tl.store(map1 + position[:, None] * 6 + feature[None, :], first.to(x.dtype.element_ty), mask=inside)
        tl.debug_barrier()
        second = pooled_convolution(map1, w1, b1, 0, 14, 6, 16, 5, PRECISION, 32, 256)
        position = tl.arange(0, 32)
        to = map2 + number * 400 + position[:, None] * 16 + feature[None, :]
        tl.store(to, second.to(x.dtype.element_ty), mask=(position < 25)[:, None] & (feature < 16)[None, :])
    tl.debug_barrier()
    row = tl.arange(0, 16)
    present = row < last
    hidden = dense(map2 + row[:, None] * 400, present, w2, b2, 400, 120, 64, 128, PRECISION)
    hidden = dense_on(tl.where(hidden < 0, 0.0, hidden), w3, b3, 120, 84, 128, 128, PRECISION)
    logits = dense_on(tl.where(hidden < 0, 0.0, hidden), w4, b4, 84, CLASSES, 128, BLOCK_CLASSES, PRECISION)
    column = tl.arange(0, BLOCK_CLASSES)
    at = (block * 16 + row).to(tl.int64)[:, None] * CLASSES + column[None, :]
    tl.store(y + at, logits.to(y.dtype.element_ty), mask=present[:, None] & (column < CLASSES)[None, :])


def forward(x, *layers, implementation):
    batch, channels, classes = x.shape[0], x.shape[3], layers[-1].shape[0]
    blocks = cdiv(batch, IMAGES)
    results = launch(
        forward_kernel,
        *(x, *layers),
        outputs=[like(x, (batch, classes)), like(x, (blocks, 196 * 6)), like(x, (blocks, IMAGES * 400))],
        grid=(blocks,),
        implementation=implementation,
        num_warps=config.choose(batch, x.dtype.itemsize).num_warps,
        num_stages=1,
        BATCH=batch,
        IN=channels,
        CLASSES=classes,
        TAPS=max(16, power_of_two(25 * channels)),
        BLOCK_CLASSES=max(16, power_of_two(classes)),
        PRECISION=precision.way(x.dtype),
    )
    return results[:1]
