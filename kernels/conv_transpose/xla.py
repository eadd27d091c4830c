"""Transposed convolution as ordinary convolutions."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels.conv import xla as conv
from kernels.linear_act import xla as linear
from kernels.runtime import dispatch

FORMS = ("dilated", "subpixel", "matmul")
Pair = tuple[int, int]
Pads = tuple[Pair, Pair]


def forms(x: tuple[int, ...], w: tuple[int, ...], strides: Pair, groups: int, dilation: Pair) -> dict[str, bool]:
    """Which forms fit, of arrays of shapes x and w; in order of preference on a CPU."""
    plain = groups == 1 and dilation == (1, 1)
    divisible = w[0] % strides[0] == 0 == w[1] % strides[1]
    return {"matmul": plain and x[1] == x[2] == 1, "subpixel": plain and divisible, "dilated": True}


def conv_transpose(
    x: jax.Array,
    w: jax.Array,
    strides: Pair,
    pads: Pads,
    output_padding: Pair,
    groups: int,
    dilation: Pair,
    form: str | None,
) -> jax.Array:
    """See kernels.conv_transpose; `form` is one that fits, or None."""
    fits = forms(x.shape, w.shape, strides, groups, dilation)
    if form is None:
        on_cpu = dispatch.device().platform == "cpu"
        form = next(name for name in fits if fits[name] and (on_cpu or name != "subpixel"))
    if form == "dilated":
        return _dilated(x, w, strides, pads, output_padding, groups, dilation)
    y = _matmul(x, w) if form == "matmul" else _subpixel(x, w, strides)
    edges = [(-low, more - high, 0) for (low, high), more in zip(pads, output_padding, strict=True)]
    return jax.lax.pad(y, jnp.zeros((), y.dtype), [(0, 0, 0), *edges, (0, 0, 0)])


def _dilated(x, w, strides, pads, output_padding, groups, dilation):
    height, width, channels, out = w.shape
    # Group by group along the outputs, as a grouped convolution has its window.
    w = w.reshape(height, width, groups, channels // groups, out).transpose(0, 1, 3, 2, 4)
    w = w.reshape(height, width, channels // groups, groups * out)
    reach = [(n - 1) * d for n, d in zip((height, width), dilation, strict=True)]
    edges = [(n - low, n - high + more) for n, (low, high), more in zip(reach, pads, output_padding, strict=True)]
    return jax.lax.conv_general_dilated(
        x,
        w[::-1, ::-1],
        (1, 1),
        edges,
        lhs_dilation=strides,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _matmul(x: jax.Array, w: jax.Array) -> jax.Array:
    height, width, channels, out = w.shape
    flat = w.transpose(2, 0, 1, 3).reshape(channels, -1)
    return linear.linear_act(x.reshape(x.shape[0], channels), flat, None, None, 0.0, 0.0, None).reshape(-1, height, width, out)


def _subpixel(x: jax.Array, w: jax.Array, strides: Pair) -> jax.Array:
    (height, width, channels, out), (down, right) = w.shape, strides
    taps = (height // down, width // right)
    # w[stride * t + r] is what tap t of phase r is multiplied with; the taps run backwards over x.
    phases = w.reshape(taps[0], down, taps[1], right, channels, out)[::-1, :, ::-1]
    phases = phases.transpose(0, 2, 4, 1, 3, 5).reshape(*taps, channels, down * right * out)
    edges = ((taps[0] - 1, taps[0] - 1), (taps[1] - 1, taps[1] - 1))
    y = conv.conv(x, phases, (1, 1), edges, 1, (1, 1))
    batch, rows, columns, _ = y.shape
    y = y.reshape(batch, rows, columns, down, right, out).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(batch, rows * down, columns * right, out)
