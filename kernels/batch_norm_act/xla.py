"""Batch normalization with residual and activation in plain JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels.runtime import activations
from kernels.runtime.activations import accumulation_dtype


def batch_norm_act(
    x: jax.Array, scale: jax.Array, bias: jax.Array, residual: jax.Array | None, activation: str | None, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Training: the statistics of x normalize it."""
    mean, var = moments(x)
    return normalize(x, scale, bias, residual, activation, epsilon, mean, var), mean, var


def moved(
    running: tuple[jax.Array, jax.Array], mean: jax.Array, var: jax.Array, count: int, momentum: float
) -> tuple[jax.Array, jax.Array]:
    """Running mean and variance after a batch of `count` values a channel, the variance towards its unbiased estimate."""
    unbiased = var * (count / max(count - 1, 1))
    new = (
        (1 - momentum) * old + momentum * jax.lax.stop_gradient(batch)
        for old, batch in zip(running, (mean, unbiased), strict=True)
    )
    return tuple(value.astype(old.dtype) for value, old in zip(new, running, strict=True))  # type: ignore[return-value]


def moments(x: jax.Array, mesh_axis: str | tuple[str, ...] | None = None) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance over the leading axes (and `mesh_axis`, within a shard_map), both sums in one pass over x.

    The sums are of x less a pilot value per channel, close enough to the mean that E[d**2] - E[d]**2 does not cancel: the mean
    over the batch of one position (of all of x where there is no other axis). The result does not depend on it, nor do
    gradients.
    """
    wide = x.astype(accumulation_dtype(x))
    axes = tuple(range(x.ndim - 1))
    # An empty batch has mean and variance zero; of a whole mesh it may count more values than an int32 holds.
    count = float(max(1, x.size // max(1, x.shape[-1])))
    one_position = x[(slice(None), *(slice(0, 1),) * (x.ndim - 2))]
    pilot_count = float(max(1, one_position.size // max(1, x.shape[-1])))
    pilot = jax.lax.stop_gradient(jnp.sum(one_position, axes, dtype=wide.dtype) / pilot_count)
    if mesh_axis is not None:
        pilot = jax.lax.pmean(pilot, mesh_axis)
    centred = wide - pilot
    offset, square = jnp.sum(centred, axes) / count, jnp.sum(centred * centred, axes) / count
    if mesh_axis is not None:
        offset, square = jax.lax.pmean((offset, square), mesh_axis)
    return pilot + offset, jnp.maximum(square - offset * offset, 0)


def normalize(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    residual: jax.Array | None,
    activation: str | None,
    epsilon: float,
    mean: jax.Array,
    var: jax.Array,
) -> jax.Array:
    """Evaluation: a factor and a shift per channel."""
    return activations.apply(activation, before_activation(x, scale, bias, residual, epsilon, mean, var)).astype(x.dtype)


def before_activation(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    residual: jax.Array | None,
    epsilon: float,
    mean: jax.Array,
    var: jax.Array,
) -> jax.Array:
    """What the activation is applied to. Subtracting the mean first keeps digits where it is large."""
    dtype = accumulation_dtype(x)
    factor = scale.astype(dtype) * jax.lax.rsqrt(var.astype(dtype) + epsilon)
    z = (x.astype(dtype) - mean.astype(dtype)) * factor + bias.astype(dtype)
    if residual is None:
        return z
    # Added in x's dtype, as models written without this operator do: XLA then keeps nothing in float32 for the backward pass,
    # which in ResNet-50 in bfloat16 would move 8 GB more.
    return z.astype(x.dtype) + residual.astype(x.dtype)
