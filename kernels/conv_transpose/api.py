"""Two-dimensional transposed convolution."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import jax

from kernels.conv_transpose import xla
from kernels.runtime import checks, dispatch

IMPLEMENTATIONS = ("xla",)


@dispatch.operator()
def conv_transpose(
    x: jax.Array,
    w: jax.Array,
    strides: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] | Sequence[Sequence[int]] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
    form: str | None = None,
    implementation: str | None = None,
) -> jax.Array:
    """As torch's conv_transpose2d: y[strides * i + dilation * a - padding] += x[i] @ w[a], the gradient of kernels.conv by x.

    Zeiler et al. 2010, Deconvolutional networks. There is no hand-written kernel: cuDNN's are better. Floor: x, w and the
    result once; 2 * inputs * (out / groups) * window operations, and twice as many backward.

    Three forms of the same sum, all in plain JAX:

    - "dilated": a convolution of x with strides - 1 zeros between its values. Of every stride^2 products only one is not with
      a zero. XLA:CPU computes them all; cuDNN, which knows this as the gradient of a convolution, none of the others.
    - "subpixel": one ordinary convolution of x that gives stride^2 output channels for each one, which are then laid out as
      stride x stride pixels (Shi et al. 2016). No product with an inserted zero; needs a window divisible by the strides, one
      group and no dilation.
    - "matmul": for a 1x1 input, whose every value meets every element of w once; needs one group and no dilation.

    Args:
      x: [batch, height, width, in], floating point.
      w: [window_height, window_width, in, out / groups], x's dtype, not flipped: torch's [in, out / groups, height, width]
        transposed.
      strides: (vertical, horizontal) step in the result, or one int.
      padding: torch's, so many rows and columns less on every side of the result: an int, (vertical, horizontal), or
        ((top, bottom), (left, right)). Or as jax.lax.conv_transpose has it: with "SAME" the result is strides times as large
        as x, a larger one cut off on both sides (an odd row or column at the end); "VALID" cuts nothing off. A smaller one,
        where the window is less than the strides, gets zeros at its end from both.
      output_padding: (bottom, right) rows and columns more, or one int; each less than the stride or the dilation.
      groups: how many groups the channels are split into; divides in.
      dilation: (vertical, horizontal) spacing of the window's elements, or one int.
      form: None for the best that fits: matmul, else subpixel on a CPU, else dilated (docs/training.md has the figures).
      implementation: see `kernels.runtime.dispatch`.

    Returns:
      [batch, (height - 1) * stride + dilation * (window_height - 1) + 1 - top - bottom + output_padding, ... likewise, out]
      of x's dtype. To jax.lax.conv_transpose the same w is w[::-1, ::-1].

    Raises:
      ValueError: the shapes, strides, padding or groups do not fit, or the form does not fit them.
      TypeError: an array is not floating point, or w's dtype is not x's.
      ImplementationError: the implementation asked for does not exist.
    """
    checks.rank("x", x, "[batch, height, width, in]")
    checks.rank("w", w, "[window_height, window_width, in, out / groups]")
    checks.floating("x", x)
    if w.dtype != x.dtype:
        raise TypeError(f"w: dtype {w.dtype} is not that of x, {x.dtype}")
    if groups < 1 or x.shape[3] % groups:
        raise ValueError(f"groups: {groups} does not divide the channels of x, {x.shape[3]}")
    if w.shape[2] != x.shape[3]:
        raise ValueError(f"w: shape {w.shape} takes {w.shape[2]} channels; x has {x.shape[3]}")
    strides, dilation = checks.pair("strides", strides), checks.pair("dilation", dilation)
    extra = checks.pair("output_padding", output_padding, minimum=0)
    if any(more >= max(s, d) for more, s, d in zip(extra, strides, dilation, strict=True)):
        raise ValueError(f"output_padding: {output_padding!r} is not less than strides={strides} or dilation={dilation}")
    spread = ((w.shape[0] - 1) * dilation[0] + 1, (w.shape[1] - 1) * dilation[1] + 1)
    pads = _padding(padding, spread, strides)
    for n, s, k, (low, high), more in zip(x.shape[1:3], strides, spread, pads, extra, strict=True):
        if (n - 1) * s + k - low - high + more < 1:
            raise ValueError(f"padding: {padding!r} leaves nothing of the result of x {x.shape} and w {w.shape}")
    fits = xla.forms(x.shape, w.shape, strides, groups, dilation)
    if form is not None and not fits.get(form, False):
        raise ValueError(
            f"form: {form!r} does not fit x {x.shape}, w {w.shape}, strides {strides}, groups {groups}, dilation {dilation}; "
            f"{', '.join(name for name in fits if fits[name])} do"
        )
    dispatch.choose("conv_transpose", implementation, {"xla": None})
    return xla.conv_transpose(x, w, strides, pads, extra, groups, dilation, form)


def _padding(padding: str | int | Sequence[int] | Sequence[Sequence[int]], window: xla.Pair, strides: xla.Pair) -> xla.Pads:
    """What is cut off on each side, ((top, bottom), (left, right)); `window` is as dilation spreads it."""
    if isinstance(padding, str) and padding.upper() in ("SAME", "VALID"):
        vertical, horizontal = zip(window, strides, strict=True)
        return _cut_off(padding.upper(), *vertical), _cut_off(padding.upper(), *horizontal)
    try:
        pair: Any = [padding] * 2 if isinstance(padding, int) else padding
        rows, columns = [(side, side) if isinstance(side, int) else side for side in pair]
        (top, bottom), (left, right) = ((operator.index(low), operator.index(high)) for low, high in (rows, columns))
    except (TypeError, ValueError):
        top = bottom = left = right = -1
    if min(top, bottom, left, right) < 0:
        allowed = '"SAME", "VALID", an int, (vertical, horizontal) or ((top, bottom), (left, right)), each at least 0'
        raise ValueError(f"padding: {padding!r} is not {allowed}")
    return (top, bottom), (left, right)


def _cut_off(padding: str, window: int, stride: int) -> xla.Pair:
    """By name, along one axis; a negative number at the end stands for so many zeros there."""
    surplus = window - stride  # of the result over stride times x
    if padding == "VALID":
        return 0, min(surplus, 0)
    low = max(surplus, 0) // 2
    return low, surplus - low
