"""A multilayer perceptron: a chain of matrix products, each with bias and activation."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from kernels.mlp import xla
from kernels.runtime import activations, checks, dispatch, precision

IMPLEMENTATIONS = ("xla", *dispatch.TRITON)
PRODUCTS = (precision.ONE_PASS, precision.EXACT)  # of float32; the others would take more registers than there are
WEIGHTS = 2**30  # of a layer, whose places are numbered in 32 bits
HIDDEN = 256  # hidden units that a block of the hand-written kernel holds


@dispatch.operator()
def mlp(
    x: jax.Array,
    weights: Sequence[jax.Array],
    biases: Sequence[jax.Array],
    activation: str | None = "relu",
    final_activation: str | None = None,
    negative_slope: float = 0.2,
    implementation: str | None = None,
) -> jax.Array:
    """final_activation(... activation(activation(x @ w0 + b0) @ w1 + b1) ...).

    The generator and discriminator of the fully connected GAN (Goodfellow et al. 2014) are such networks. Each layer's result
    is rounded to x's dtype. Differentiated, every implementation is XLA's. Floor: x, the weights, the biases and y once.

    Args:
      x: [..., in], floating point.
      weights: for each layer [in, out], x's dtype; the widths form a chain.
      biases: for each layer [out], floating point of any width.
      activation: after every layer but the last: "relu", "leaky_relu", "tanh", "gelu" (exact) or None.
      final_activation: after the last.
      negative_slope: of "leaky_relu".
      implementation: see `kernels.runtime.dispatch`. The hand-written kernel answers `jax.default_matmul_precision` as those of
        linear_act do, but for names that end in X3 or X6, which are left to XLA.

    Returns:
      [..., out of the last layer] of x's dtype.

    Raises:
      ValueError: a shape or an activation does not fit.
      TypeError: an array is not floating point, or a weight's dtype is not x's.
      ImplementationError: the implementation asked for does not exist or cannot run, for reasons that it lists.
    """
    activations.check(activation)
    activations.check(final_activation, "final_activation")
    checks.floating("x", x)
    if x.ndim < 1:
        raise ValueError(f"x: shape {x.shape} is not [..., in]")
    if not weights or len(weights) != len(biases):
        raise ValueError(f"weights, biases: {len(weights)} and {len(biases)} arrays; give one of each per layer, one at least")
    width = x.shape[-1]
    for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
        checks.rank(f"weights[{i}]", w, "[in, out]")
        checks.shape(f"weights[{i}]", w, (width, w.shape[1]), "[in, out], with the width of the layer before as in")
        checks.floating(f"biases[{i}]", b)
        checks.shape(f"biases[{i}]", b, w.shape[1:], f"[out] of weights[{i}]")
        if w.dtype != x.dtype:
            raise TypeError(f"weights[{i}]: dtype {w.dtype} is not that of x, {x.dtype}")
        width = w.shape[1]
    reason = checks.hand_written(x, *biases)
    if len(weights) != 2:
        reason = f"it takes two layers, and was given {len(weights)}"
    elif weights[0].shape[1] > HIDDEN:
        reason = f"it takes up to {HIDDEN} hidden units, and was given {weights[0].shape[1]}"
    elif (largest := max(w.size for w in weights)) > WEIGHTS:
        reason = f"it takes layers of up to {WEIGHTS} weights, and was given {largest}"
    reason = reason or precision.reason(x.dtype, PRODUCTS)
    has = {"xla": None, **dict.fromkeys(dispatch.TRITON, reason)}
    chosen = dispatch.choose("mlp", implementation, has, checks.shape_class(x, *weights))
    if chosen != "xla" and x.size and all(w.size for w in weights):
        from kernels.mlp import vjp

        rows = x.reshape(-1, x.shape[-1])
        y = vjp.mlp(rows, tuple(weights), tuple(biases), activation, final_activation, negative_slope, chosen)
        return y.reshape(*x.shape[:-1], weights[-1].shape[1])
    return xla.mlp(x, tuple(weights), tuple(biases), activation, final_activation, negative_slope)
