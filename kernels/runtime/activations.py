"""Activations by name, for the operators that fuse one."""

from __future__ import annotations

import jax
import jax.numpy as jnp

SLOPE = 0.01  # of "leaky_relu" where an operator takes none
NAMES = ("relu", "leaky_relu", "tanh", "gelu", None)


def check(name: str | None, argument: str = "activation") -> None:
    if name not in NAMES:
        raise ValueError(f"{argument}: {name!r} is none of {', '.join(map(repr, NAMES))}")


def apply(name: str | None, x: jax.Array, negative_slope: float = SLOPE) -> jax.Array:
    """The activation of that name; "gelu" is the exact one (by erf), as torch's default is."""
    match name:
        case None:
            return x
        case "relu":
            return jax.nn.relu(x)
        case "leaky_relu":
            return jnp.where(x >= 0, x, negative_slope * x)
        case "tanh":
            return jnp.tanh(x)
        case "gelu":
            return jax.nn.gelu(x, approximate=False)
    raise ValueError(f"activation: {name!r} is none of {', '.join(map(repr, NAMES))}")


def accumulation_dtype(*arrays: jax.Array | None) -> jnp.dtype:
    """float32, or float64 where an operand is: what sums are taken in."""
    return jnp.result_type(jnp.float32, *(a.dtype for a in arrays if a is not None))
