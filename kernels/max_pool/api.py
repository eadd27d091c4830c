"""Max pooling over [batch, height, width, channels]."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from kernels.max_pool import xla
from kernels.runtime import checks, dispatch
from kernels.runtime.sizes import cdiv

IMPLEMENTATIONS = ("xla", "triton", "interpret")
POSITIONS = 255  # what one byte can tell apart
ROW = 2**23  # elements; rows are cut into blocks along an axis of the grid that takes 65535 of them


@dispatch.operator()
def max_pool(
    x: jax.Array,
    window: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: str | Sequence[Sequence[int]] = "VALID",
    ceil_mode: bool = False,
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
      padding: "VALID", "SAME", or ((top, bottom), (left, right)), each less than the window.
      ceil_mode: keep a last window that hangs over the end, as long as it starts inside the input or the leading padding
        (torch's rule).
      implementation: see `kernels.runtime.dispatch`. Where none is named, the hand-written kernel runs where a gradient is
        taken; a forward pass alone is left to XLA, which fuses it with the norm and the ReLU before it.

    Returns:
      [batch, out_height, out_width, channels] of x's dtype.

    Raises:
      ValueError: the shape, window, strides or padding do not fit.
      TypeError: x is not floating point.
      ImplementationError: the implementation asked for does not exist or cannot run, for reasons that it lists.
    """
    checks.rank("x", x, "[batch, height, width, channels]")
    checks.floating("x", x)
    window = checks.pair("window", window)
    strides = window if strides is None else checks.pair("strides", strides)
    size = x.shape[1:3]
    pads = checks.spatial_padding(padding, size, window, strides)
    if any(max(pad) >= w for pad, w in zip(pads, window, strict=True)):
        raise ValueError(f"padding: {padding!r} is not less than window={window} everywhere: a window would see padding only")
    if ceil_mode:
        pads = (
            _ceil(size[0], window[0], strides[0], pads[0]),
            _ceil(size[1], window[1], strides[1], pads[1]),
        )
    if any(n + sum(pad) < w for n, w, pad in zip(size, window, pads, strict=True)):
        raise ValueError(f"window: {window} is larger than x of height and width {size} with padding {pads}")
    reason = checks.hand_written(x)
    if window[0] * window[1] > POSITIONS:
        reason = f"it takes windows of up to {POSITIONS} positions, and was given {window}"
    if checks.exceeds((width := size[1] + sum(pads[1])) * x.shape[3], ROW):
        reason = f"it takes rows of up to {ROW} elements, padded, and was given {width} columns of {x.shape[3]}"
    has = {"xla": None, "triton": reason, "interpret": reason}
    chosen = dispatch.choose("max_pool", implementation, has, checks.shape_class(x))
    if chosen != "xla" and x.size:
        from kernels.max_pool import vjp

        if dispatch.named(implementation, has) is None:
            return vjp.max_pool_where_differentiated(x, window, strides, pads)
        return vjp.max_pool(x, window, strides, pads, chosen == "interpret")
    return xla.max_pool(x, window, strides, pads)


def _ceil(size: int, window: int, stride: int, pad: tuple[int, int]) -> tuple[int, int]:
    """The padding with which flooring gives what ceil_mode asks for."""
    low, high = pad
    outputs = cdiv(size + low + high - window, stride) + 1
    if (outputs - 1) * stride >= size + low:  # the last window would start beyond the input
        outputs -= 1
    return low, max(high, (outputs - 1) * stride + window - size - low)
