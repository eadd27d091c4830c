"""Local response normalization across channels (Krizhevsky et al. 2012, section 3.3)."""

from __future__ import annotations

import operator

import jax

from kernels.local_response_norm import xla
from kernels.runtime import checks, dispatch

IMPLEMENTATIONS = ("xla", *dispatch.TRITON)
CHANNELS = 4096  # what a tile of the hand-written kernel holds


@dispatch.operator()
def local_response_norm(
    x: jax.Array,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 2.0,
    implementation: str | None = None,
) -> jax.Array:
    """x / (k + alpha * sum of x**2 over `size` neighbouring channels) ** beta, with channels beyond the ends taken as zero.

    The defaults are the paper's. torch.nn.LocalResponseNorm(size, alpha, beta, k) divides its alpha by the size (and its k is
    1 by default): local_response_norm(x, size, alpha / size, beta, k) gives the same numbers.

    Floor: forward two passes over an array like x (x, y), backward three (x, dy, dx).

    Args:
      x: [..., channels], floating point.
      size: channels in a window, centred on the output's; of an even number one more lies before it than after, as in torch.
      alpha, beta, k: the constants of the formula.
      implementation: see `kernels.runtime.dispatch`.

    Returns:
      An array like x.

    Raises:
      ValueError: x has no channels axis, or size is not positive.
      TypeError: x is not floating point.
      ImplementationError: the implementation asked for does not exist or cannot run, for reasons that it lists.
    """
    checks.floating("x", x)
    if x.ndim < 1:
        raise ValueError(f"x: shape {x.shape} is not [..., channels]")
    if operator.index(size) < 1:
        raise ValueError(f"size: {size} is not at least 1")
    reason = checks.hand_written(x)
    if x.shape[-1] > CHANNELS:
        reason = f"it takes up to {CHANNELS} channels, and was given {x.shape[-1]}"
    has = {"xla": None, **dict.fromkeys(dispatch.TRITON, reason)}
    chosen = dispatch.choose("local_response_norm", implementation, has, checks.shape_class(x))
    if chosen != "xla" and x.size:
        from kernels.local_response_norm import vjp

        rows = x if x.ndim > 1 else x[None]
        return vjp.local_response_norm(rows, size, alpha, beta, k, chosen).reshape(x.shape)
    return xla.local_response_norm(x, size, alpha, beta, k)
