"""The modern LeNet-5 as one operator."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from kernels.lenet5 import xla
from kernels.runtime import checks, dispatch, precision

IMPLEMENTATIONS = ("xla", *dispatch.TRITON)
PRODUCTS = (precision.ONE_PASS, precision.EXACT)  # of float32; the others would take more registers than there are
CHANNELS = 5  # of the images, up to which a block of the hand-written kernel holds a tile of patches


@dispatch.operator()
def lenet5(
    x: jax.Array, weights: Sequence[jax.Array], biases: Sequence[jax.Array], implementation: str | None = None
) -> jax.Array:
    """The logits of LeNet-5 (LeCun et al. 1998) in its modern form: ReLU, max pooling, a plain last layer.

    5x5 convolution to 6, ReLU, 2x2 pool, 5x5 convolution to 16, ReLU, 2x2 pool, then 400 (in the order height, width, channels)
    to 120, ReLU, 84, ReLU, classes.

    Each layer's result is rounded to x's dtype. Differentiated, every implementation is XLA's. Floor: images, weights and
    logits once, and 833,040 operations an image of one channel, which take longer than the bytes.

    Args:
      x: [batch, 32, 32, in], floating point.
      weights: [5, 5, in, 6], [5, 5, 6, 16], [400, 120], [120, 84], [84, classes], all of x's dtype.
      biases: [6], [16], [120], [84], [classes], floating point of any width.
      implementation: see `kernels.runtime.dispatch`. The hand-written kernel answers `jax.default_matmul_precision` as those of
        linear_act do, but for names that end in X3 or X6, which are left to XLA.

    Returns:
      [batch, classes] of x's dtype.

    Raises:
      ValueError: a shape does not fit.
      TypeError: an array is not floating point, or a weight's dtype is not x's.
      ImplementationError: the implementation asked for does not exist or cannot run, for reasons that it lists.
    """
    checks.rank("x", x, "[batch, 32, 32, in]")
    checks.floating("x", x)
    checks.shape("x", x, (x.shape[0], 32, 32, x.shape[3]), "[batch, 32, 32, in]")
    if len(weights) != 5 or len(biases) != 5:
        raise ValueError(f"weights, biases: {len(weights)} and {len(biases)} arrays; LeNet-5 has five layers")
    classes = weights[4].shape[-1]
    shapes = ((5, 5, x.shape[3], 6), (5, 5, 6, 16), (400, 120), (120, 84), (84, classes))
    for i, (w, b, expected) in enumerate(zip(weights, biases, shapes, strict=True)):
        checks.shape(f"weights[{i}]", w, expected, "as LeNet-5 has it")
        checks.shape(f"biases[{i}]", b, expected[-1:], f"one value for each output of weights[{i}]")
        checks.floating(f"biases[{i}]", b)
        if w.dtype != x.dtype:
            raise TypeError(f"weights[{i}]: dtype {w.dtype} is not that of x, {x.dtype}")
    reason = checks.hand_written(x, *biases)
    if x.shape[3] > CHANNELS:
        reason = f"it takes images of up to {CHANNELS} channels, and was given {x.shape[3]}"
    reason = reason or precision.reason(x.dtype, PRODUCTS)
    has = {"xla": None, **dict.fromkeys(dispatch.TRITON, reason)}
    chosen = dispatch.choose("lenet5", implementation, has, checks.shape_class(x))
    if chosen != "xla" and x.size and classes:
        from kernels.lenet5 import vjp

        return vjp.lenet5(x, tuple(weights), tuple(biases), chosen)
    return xla.lenet5(x, tuple(weights), tuple(biases))
