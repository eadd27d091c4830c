"""Matrix product, bias, activation and dropout in one operator."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from kernels.linear_act import xla
from kernels.runtime import activations, checks, dispatch, precision

IMPLEMENTATIONS = ("xla", *dispatch.TRITON, "pallas")
ON_REQUEST = ("pallas",)  # chosen by name, or where it was measured to be the fastest
OUTPUTS = 2**21  # columns are cut into blocks along an axis of the grid that takes 65535 of them
PRODUCTS = (precision.ONE_PASS, precision.EXACT, *precision.SPLIT)  # of float32


@dispatch.operator()
def linear_act(
    x: jax.Array,
    w: jax.Array,
    b: jax.Array | None = None,
    activation: str | None = "relu",
    negative_slope: float = 0.01,
    dropout_rate: float = 0.0,
    dropout_seed: int | jax.Array | None = None,
    implementation: str | None = None,
) -> jax.Array:
    """dropout(activation(x @ w + b)), with sums in float32 at least.

    Dropout keeps an element with probability 1 - dropout_rate and divides it by that. Its mask is a function of the seed and
    the element's place in the output alone, so that it is computed again in the backward pass instead of stored, and every
    implementation drops the same elements: by the random bits of Threefry-2x32 (Salmon et al. 2011, Parallel random numbers;
    dropout: Srivastava et al. 2014).

    Floor: x, w, b and y once; 2 * rows * in * out operations, and twice as many backward.

    Args:
      x: [..., in], floating point.
      w: [in, out], x's dtype.
      b: [out], floating point of any width; None for none.
      activation: "relu", "leaky_relu", "tanh", "gelu" (exact) or None.
      negative_slope: of "leaky_relu".
      dropout_rate: in [0, 1).
      dropout_seed: an int or an integer scalar; needed where dropout_rate > 0.
      implementation: see `kernels.runtime.dispatch`. "pallas", for Hopper, runs where it is named and where it was measured to
        be the fastest: unmeasured, the choice falls on "triton", which takes every shape and dtype. Float32 is multiplied as
        `jax.default_matmul_precision` says, forward and backward: in tf32 by default, exactly for "highest" and F32_F32_F32,
        and as TF32_TF32_F32_X3, BF16_BF16_F32_X3 and BF16_BF16_F32_X6 say. What has no such kernel is left to XLA.

    Returns:
      [..., out] of x's dtype.

    Raises:
      ValueError: a shape, the activation or the rate does not fit, or the seed is missing.
      TypeError: an array is not floating point, or w's dtype is not x's.
      ImplementationError: the implementation asked for does not exist or cannot run, for reasons that it lists.
    """
    activations.check(activation)
    for name, array in (("x", x), ("w", w), ("b", b)):
        if array is not None:
            checks.floating(name, array)
    if x.ndim < 1:
        raise ValueError(f"x: shape {x.shape} is not [..., in]")
    checks.rank("w", w, "[in, out]")
    checks.shape("w", w, (x.shape[-1], w.shape[1]), f"[in, out] for x of shape {x.shape}")
    if w.dtype != x.dtype:
        raise TypeError(f"w: dtype {w.dtype} is not that of x, {x.dtype}")
    if b is not None:
        checks.shape("b", b, w.shape[1:], f"[out] for w of shape {w.shape}")
    if not 0 <= dropout_rate < 1:
        raise ValueError(f"dropout_rate: {dropout_rate} is not in [0, 1)")
    if dropout_rate and dropout_seed is None:
        raise ValueError(f"dropout_seed: needed where dropout_rate is {dropout_rate}")
    seed = None
    if dropout_rate:
        seed = jnp.asarray(dropout_seed)
        if seed.shape != () or not jnp.issubdtype(seed.dtype, jnp.integer):
            raise ValueError(f"dropout_seed: {seed.dtype}{list(seed.shape)} is not an integer scalar")
    reason = checks.hand_written(x, w, b)
    if checks.exceeds(w.shape[1], OUTPUTS):
        reason = f"it takes up to {OUTPUTS} outputs, and was given {w.shape[1]}"
    if dropout_rate and checks.exceeds(math.prod(x.shape[:-1]) * w.shape[1], 2**32):
        reason = "it numbers the elements that it may drop in 32 bits, and y has more"
    if activation == "leaky_relu" and negative_slope <= 0:
        reason = f"it takes a positive negative_slope, and was given {negative_slope}"
    reason = reason or precision.reason(x.dtype, PRODUCTS)
    has = {"xla": None, **dict.fromkeys(dispatch.TRITON, reason), "pallas": reason or _pallas_reason(x)}
    chosen = dispatch.choose("linear_act", implementation, has, checks.shape_class(x, w), on_request=ON_REQUEST)
    if chosen != "xla" and x.size and w.size:
        from kernels.linear_act import vjp

        key = None if seed is None else jax.random.key_data(jax.random.key(seed, impl="threefry2x32"))
        rows = x.reshape(-1, x.shape[-1])
        y = vjp.linear_act(rows, w, b, key, activation, negative_slope, dropout_rate, precision.asked(), chosen)
        return y.reshape(*x.shape[:-1], w.shape[1])
    return xla.linear_act(x, w, b, activation, negative_slope, dropout_rate, seed)


def _pallas_reason(x: jax.Array) -> str | None:
    """Why the kernel in Pallas does not take these arguments."""
    if x.dtype not in (jnp.bfloat16, jnp.float16):
        return f"it takes bfloat16 and float16, which wgmma multiplies without rounding them first, and was given {x.dtype}"
    if (missing := dispatch.device_reason("triton")) is not None:
        return f"its backward pass is a Triton kernel: {missing}"
    return None
