"""Two-dimensional convolution (cross-correlation, as everywhere in deep learning)."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from kernels.conv import xla
from kernels.runtime import checks, dispatch

IMPLEMENTATIONS = ("xla",)


@dispatch.operator()
def conv(
    x: jax.Array,
    w: jax.Array,
    strides: int | Sequence[int] = 1,
    padding: str | Sequence[Sequence[int]] = "SAME",
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
    implementation: str | None = None,
) -> jax.Array:
    """The convolution of x with w, with sums in float32 at least.

    On a GPU this is XLA and cuDNN, which no hand-written kernel here beats. On a CPU some shapes and some gradients run as
    matrix products or shifted sums, where those are faster (kernels/conv/cpu.py).

    Grouped: Krizhevsky et al. 2012; dilated: Yu, Koltun 2016. Floor: x, w and the result once; 2 * outputs * (in / groups) *
    window operations, and twice as many backward.

    Args:
      x: [batch, height, width, in], floating point.
      w: [window_height, window_width, in / groups, out], x's dtype.
      strides: (vertical, horizontal) step, or one int.
      padding: "SAME" (ceil(size / stride) outputs), "VALID", or ((top, bottom), (left, right)).
      groups: how many groups the channels are split into; divides in and out.
      dilation: (vertical, horizontal) spacing of the window's elements, or one int.
      implementation: see `kernels.runtime.dispatch`.

    Returns:
      [batch, out_height, out_width, out] of x's dtype.

    Raises:
      ValueError: the shapes, groups, strides or padding do not fit.
      TypeError: an array is not floating point, or w's dtype is not x's.
      ImplementationError: the implementation asked for does not exist or cannot run, for reasons that it lists.
    """
    checks.rank("x", x, "[batch, height, width, in]")
    checks.rank("w", w, "[window_height, window_width, in / groups, out]")
    checks.floating("x", x)
    if w.dtype != x.dtype:
        raise TypeError(f"w: dtype {w.dtype} is not that of x, {x.dtype}")
    if groups < 1 or x.shape[3] % groups or w.shape[3] % groups:
        raise ValueError(f"groups: {groups} does not divide the channels of x, {x.shape[3]}, and of w, {w.shape[3]}")
    if w.shape[2] * groups != x.shape[3]:
        raise ValueError(f"w: shape {w.shape} with groups={groups} takes {w.shape[2] * groups} channels; x has {x.shape[3]}")
    strides = checks.pair("strides", strides)
    dilation = checks.pair("dilation", dilation)
    size = x.shape[1:3]
    window = tuple((n - 1) * d + 1 for n, d in zip(w.shape[:2], dilation, strict=True))
    pads = checks.spatial_padding(padding, size, window, strides)
    if any(n + sum(pad) < n_window for n, n_window, pad in zip(size, window, pads, strict=True)):
        raise ValueError(f"w: its window, {window}, is larger than x of height and width {size} with padding {pads}")
    dispatch.choose("conv", implementation, {"xla": None})
    return xla.conv(x, w, strides, pads, groups, dilation)
