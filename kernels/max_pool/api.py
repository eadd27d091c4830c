"""Max pooling over [batch, height, width, channels]."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from kernels.max_pool import xla
from kernels.runtime import checks, dispatch

IMPLEMENTATIONS = ("xla", *dispatch.TRITON)
POSITIONS = 255  # what one byte can tell apart
ROW = 2**23  # elements; rows are cut into blocks along an axis of the grid that takes 65535 of them


@dispatch.operator()
def max_pool(
    x: jax.Array,
    window: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: str | Sequence[Sequence[int]] = "VALID",
    ceil_mode: bool = False,
    dilation: int | Sequence[int] = 1,
    implementation: str | None = None,
) -> jax.Array:
    """The maximum of each window.

    Padding never wins. A NaN in a window makes its output NaN. The gradient of a window goes to its first maximum in
    row-major order, as in torch and in XLA (a ReLU before the pool makes ties of zeros everywhere); on a GPU "xla" alone drops
    the gradient of a window of minus infinities that begins in the padding.

    Floor, with e bytes an element: e * (inputs + outputs), and with a gradient a byte an output more; backward the same.

    Args:
      x: [batch, height, width, channels], floating point.
      window: (height, width) of the window, or one int for both.
      strides: (vertical, horizontal) step, or one int; the window's own size if not given.
      padding: "VALID", "SAME", or ((top, bottom), (left, right)), each less than the window as `dilation` spreads it.
      ceil_mode: keep a last window that hangs over the end, as long as it starts inside the input or the leading padding
        (torch's rule).
      dilation: (vertical, horizontal) spacing of the window's elements, or one int; above 1 it takes "xla".
      implementation: see `kernels.runtime.dispatch`. Where none is named, the hand-written kernel runs where a gradient is
        taken; a forward pass alone is left to XLA, which fuses it with the norm and the ReLU before it.

    Returns:
      [batch, out_height, out_width, channels] of x's dtype.

    Raises:
      ValueError: the shape, window, strides, padding or dilation do not fit, or a window would see padding only.
      TypeError: x is not floating point.
      ImplementationError: the implementation asked for does not exist or cannot run, for reasons that it lists.
    """
    checks.rank("x", x, "[batch, height, width, channels]")
    checks.floating("x", x)
    window = checks.pair("window", window)
    strides = window if strides is None else checks.pair("strides", strides)
    dilation = checks.pair("dilation", dilation)
    spread = ((window[0] - 1) * dilation[0] + 1, (window[1] - 1) * dilation[1] + 1)
    size = x.shape[1:3]
    pads = checks.spatial_padding(padding, size, spread, strides)
    checks.less_than_window(padding, pads, spread)
    if ceil_mode:
        pads = checks.with_ceil_mode(size, spread, strides, pads)
    checks.window_fits(size, spread, pads)
    for n, w, s, d, pad in zip(size, window, strides, dilation, pads, strict=True):
        if d > 1 and _misses(n, w, s, d, pad):
            raise ValueError(f"dilation: with {dilation}, window={window} and padding {pads} a window steps over all of {size}")
    reason = checks.hand_written(x)
    if window[0] * window[1] > POSITIONS:
        reason = f"it takes windows of up to {POSITIONS} positions, and was given {window}"
    if checks.exceeds((width := size[1] + sum(pads[1])) * x.shape[3], ROW):
        reason = f"it takes rows of up to {ROW} elements, padded, and was given {width} columns of {x.shape[3]}"
    if dilation != (1, 1):
        reason = f"it takes no dilation, and was given {dilation}"
    has = {"xla": None, **dict.fromkeys(dispatch.TRITON, reason)}
    chosen = dispatch.choose("max_pool", implementation, has, checks.shape_class(x))
    if chosen != "xla" and x.size:
        from kernels.max_pool import vjp

        if dispatch.named(implementation, has) is None:
            return vjp.max_pool_where_differentiated(x, window, strides, pads, chosen)
        return vjp.max_pool(x, window, strides, pads, chosen)
    return xla.max_pool(x, window, strides, pads, dilation)


def _misses(size: int, window: int, stride: int, dilation: int, pad: tuple[int, int]) -> bool:
    """Whether some window has no element inside the input: a dilated one may have them on both sides."""
    starts = np.arange(0, size + sum(pad) - (window - 1) * dilation, stride) - pad[0]
    seen = starts[:, None] + dilation * np.arange(window)
    return not ((seen >= 0) & (seen < size)).any(1).all()
