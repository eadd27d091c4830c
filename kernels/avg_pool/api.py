"""Average pooling over [batch, height, width, channels]."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from kernels.avg_pool import xla
from kernels.runtime import checks, dispatch

IMPLEMENTATIONS = ("xla",)


@dispatch.operator()
def avg_pool(
    x: jax.Array,
    window: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: str | Sequence[Sequence[int]] = "VALID",
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    implementation: str | None = None,
) -> jax.Array:
    """The mean of each window (LeCun et al. 1998 subsample so), as torch's avg_pool2d; sums in float32 at least.

    There is no hand-written kernel: XLA's reads x once and writes the means. Floor: x and the means once, the same backward.

    Args:
      x: [batch, height, width, channels], floating point.
      window: (height, width) of the window, or one int for both.
      strides: (vertical, horizontal) step, or one int; the window's own size if not given.
      padding: "VALID", "SAME", or ((top, bottom), (left, right)) zeros, each less than the window.
      ceil_mode: keep a last window that hangs over the end, as long as it starts inside the input or the leading padding.
        What hangs over the padding never counts in its mean.
      count_include_pad: whether the padding counts in the mean, as torch has it; ONNX and "SAME" of TensorFlow leave it out.
      implementation: see `kernels.runtime.dispatch`.

    Returns:
      [batch, out_height, out_width, channels] of x's dtype.

    Raises:
      ValueError: the shape, window, strides or padding do not fit.
      TypeError: x is not floating point.
      ImplementationError: the implementation asked for does not exist.
    """
    checks.rank("x", x, "[batch, height, width, channels]")
    checks.floating("x", x)
    window = checks.pair("window", window)
    strides = window if strides is None else checks.pair("strides", strides)
    size = x.shape[1:3]
    pads = checks.spatial_padding(padding, size, window, strides)
    checks.less_than_window(padding, pads, window)
    reach = checks.with_ceil_mode(size, window, strides, pads) if ceil_mode else pads
    checks.window_fits(size, window, reach)
    dispatch.choose("avg_pool", implementation, {"xla": None})
    return xla.avg_pool(x, window, strides, pads, reach, count_include_pad)
