"""Convolution on a CPU: the formulation that XLA:CPU runs fastest, chosen separately for the output and for each gradient.

XLA:CPU's own convolution is fast for most shapes, if Eigen computes it (`zoo.compiler_options`). It is needlessly slow for
images of a few pixels, kernels larger than the image, narrow images with few channels, groups and the weight gradients of 1x1
windows; the rules below catch these. They were chosen on two x86-64 cores; experiments/benchmarks/cpu_operators.py repeats the
measurements.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

from kernels.runtime import meshes
from kernels.runtime.derivatives import differentiable

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
CONVOLUTIONS = 8  # that a grouped one is split into, at most
MOST_GROUPS = 32  # that were tried


def lax_conv(x: jax.Array, w: jax.Array, strides: Pair, pads: Pads, groups: int = 1, dilation: Pair = (1, 1)) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        w,
        strides,
        pads,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def conv(x: jax.Array, w: jax.Array, strides: Pair, pads: Pads) -> jax.Array:
    """Equal to `lax_conv`, in all its derivatives too."""

    def backward(residuals, dy):
        x, w = residuals
        return input_gradient(w, dy, x.shape, strides, pads), weight_gradient(x, dy, w.shape, strides, pads)

    plain = functools.partial(lax_conv, strides=strides, pads=pads)
    return differentiable(plain, lambda x, w: (output(x, w, strides, pads), (x, w)), backward)(x, w)


def output(x: jax.Array, w: jax.Array, strides: Pair, pads: Pads) -> jax.Array:
    window = (w.shape[0], w.shape[1])
    if _is_tiny(x.shape, window, strides, pads) or _is_swapped(x.shape[1:3], window):
        return jnp.concatenate(shifted(x, window, strides, pads), -1) @ w.reshape(-1, w.shape[3])
    if _is_narrow(x.shape, w.shape, pads):
        return banded(x, w, strides, pads)
    return lax_conv(x, w, strides, pads)


def weight_gradient(x: jax.Array, dy: jax.Array, shape: tuple[int, ...], strides: Pair, pads: Pads) -> jax.Array:
    window, (channels, features) = (shape[0], shape[1]), shape[2:]
    if window == (1, 1) or _is_tiny(x.shape, window, strides, pads) or _is_swapped(x.shape[1:3], dy.shape[1:3]):
        dy = dy.reshape(-1, features)
        products = [part.reshape(-1, channels).T @ dy for part in shifted(x, window, strides, pads)]
        return jnp.stack(products).reshape(shape)
    transpose = jax.linear_transpose(lambda w: lax_conv(x, w, strides, pads), meshes.example(shape, x))
    return transpose(dy)[0]


def input_gradient(w: jax.Array, dy: jax.Array, shape: tuple[int, ...], strides: Pair, pads: Pads) -> jax.Array:
    window, (channels, features) = (w.shape[0], w.shape[1]), w.shape[2:]
    if window != (1, 1) and _is_narrow(shape, w.shape, pads):
        transpose = jax.linear_transpose(lambda x: banded(x, w, strides, pads), meshes.example(shape, dy))
        return transpose(dy)[0]
    swapped = _is_swapped(dy.shape[1:3], window)
    if window == (1, 1) or channels == 1 or _is_tiny(shape, window, strides, pads) or swapped:
        columns = (dy.reshape(-1, features) @ w.reshape(-1, features).T).reshape(*dy.shape[:3], -1, channels)
        parts = [columns[:, :, :, k] for k in range(window[0] * window[1])]
        transpose = jax.linear_transpose(lambda x: shifted(x, window, strides, pads), meshes.example(shape, dy))
        return transpose(parts)[0]
    transpose = jax.linear_transpose(lambda x: lax_conv(x, w, strides, pads), meshes.example(shape, dy))
    return transpose(dy)[0]


def _is_tiny(x_shape: tuple[int, ...], window: Pair, strides: Pair, pads: Pads) -> bool:
    """Whether the output has four pixels or fewer an image: XLA:CPU's convolution then takes 5 to 40 times as long as one
    product of the patches with the weights (batch 64, 256 and 512 channels, 3x3)."""
    return math.prod((n + sum(p) - m) // s + 1 for n, p, m, s in zip(x_shape[1:3], pads, window, strides, strict=True)) <= 4


def _is_swapped(image: tuple[int, ...], kernel: tuple[int, ...]) -> bool:
    """Whether the kernel has more pixels than the image, as in the weight gradient of a transposed convolution: XLA swaps the
    two, which flips one, and XLA:CPU runs a convolution with a flip as a plain loop, which takes 40 times as long."""
    return math.prod(kernel) > math.prod(image)


def _is_narrow(x_shape: tuple[int, ...], w_shape: tuple[int, ...], pads: Pads) -> bool:
    """Whether a row of the image is so small that `banded` wins: LeNet-5's layers are, those of 64 channels are not."""
    return (x_shape[2] + sum(pads[1])) * x_shape[3] <= 128 and w_shape[3] <= 16


def banded(x: jax.Array, w: jax.Array, strides: Pair, pads: Pads) -> jax.Array:
    """One matrix product: the rows of the image that a row of outputs sees, side by side, times a banded matrix of the window.

    Most of the band is zeros, [window_height * width * in, out_width * out] of them, but for a few channels one product with a
    wide matrix takes less time than a loop over windows.
    """
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    batch, height, width, channels = x.shape
    rows, taps, _, features = w.shape
    out_height, out_width = (height - rows) // strides[0] + 1, (width - taps) // strides[1] + 1
    tap, column, output_column = (jnp.arange(size) for size in (taps, width, out_width))
    meets = column[None, :, None] == strides[1] * output_column[None, None, :] + tap[:, None, None]
    bands = jnp.einsum("jab,ijco->iacbo", meets.astype(w.dtype), w).reshape(-1, out_width * features)
    x = x.reshape(batch, height, width * channels)
    last = (out_height - 1) * strides[0] + 1
    seen = jnp.concatenate([x[:, row : row + last : strides[0]] for row in range(rows)], -1)
    return (seen.reshape(batch * out_height, len(bands)) @ bands).reshape(batch, out_height, out_width, features)


def shifted(x: jax.Array, window: Pair, strides: Pair, pads: Pads) -> list[jax.Array]:
    """For each offset within the window (row-major), the elements of x that it meets: [batch, out_height, out_width, in]."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    height, width = ((n - m) // s + 1 for n, m, s in zip(x.shape[1:3], window, strides, strict=True))
    return [
        x[:, i : i + (height - 1) * strides[0] + 1 : strides[0], j : j + (width - 1) * strides[1] + 1 : strides[1]]
        for i in range(window[0])
        for j in range(window[1])
    ]


def grouped(x: jax.Array, w: jax.Array, strides: Pair, pads: Pads, groups: int) -> jax.Array:
    """Equal to `lax_conv` of as many groups, for finite x: up to eight convolutions, each of several groups, whose weights hold
    zeros from one group to another.

    A ResNeXt's 32 groups then take a sixteenth to the whole of the time that XLA:CPU's grouped convolution takes, although
    three quarters of the products are with zeros.
    """
    plain = functools.partial(lax_conv, strides=strides, pads=pads, groups=groups)

    def forward(x, w):
        blocks = _blocks(w, groups)
        parts = [output(a, blocks[i], strides, pads) for i, a in enumerate(jnp.split(x, _parts(groups), -1))]
        return jnp.concatenate(parts, -1), (x, w)

    return differentiable(plain, forward, functools.partial(_grouped_backward, strides, pads, groups))(x, w)


def _parts(groups: int) -> int:
    return max(n for n in range(1, CONVOLUTIONS + 1) if groups % n == 0)


def _blocks(w: jax.Array, groups: int) -> jax.Array:
    """[rows, columns, in / groups, out] to [parts, rows, columns, in / parts, out / parts]."""
    rows, columns, channels, features = w.shape
    joined = groups // _parts(groups)
    w = w.reshape(rows, columns, channels, -1, joined, features // groups)
    blocks = jnp.einsum("rcipgo,hg->prchigo", w, jnp.eye(joined, dtype=w.dtype))
    return blocks.reshape(-1, rows, columns, joined * channels, joined * features // groups)


def _grouped_backward(strides, pads, groups, residuals, dy):
    x, w = residuals
    window, channels, parts = (w.shape[0], w.shape[1]), w.shape[2], _parts(groups)
    blocks, shape = _blocks(w, groups), (*x.shape[:3], x.shape[3] // parts)
    gradients = [input_gradient(blocks[i], a, shape, strides, pads) for i, a in enumerate(jnp.split(dy, parts, -1))]
    # One product for each offset and group, all groups in a batch: few operations, so that they are compiled in no time.
    dy = dy.reshape(-1, groups, dy.shape[3] // groups)
    products = [
        jnp.einsum("ngi,ngo->igo", part.reshape(-1, groups, channels), dy) for part in shifted(x, window, strides, pads)
    ]
    return jnp.concatenate(gradients, -1), jnp.stack(products).reshape(w.shape)
