"""Matrix product, bias, activation and dropout in plain JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels.runtime import activations
from kernels.runtime.activations import accumulation_dtype


def linear_act(
    x: jax.Array,
    w: jax.Array,
    b: jax.Array | None,
    activation: str | None,
    negative_slope: float,
    dropout_rate: float,
    seed: jax.Array | None,
    key: jax.Array | None = None,
) -> jax.Array:
    """With dropout where there is a seed, or else the two words of a threefry key."""
    z = jnp.matmul(x, w, preferred_element_type=accumulation_dtype(x))
    if b is not None:
        z += b.astype(z.dtype)
    y = activations.apply(activation, z, negative_slope)
    if seed is not None or key is not None:
        words = jax.random.key_data(jax.random.key(seed, impl="threefry2x32")) if key is None else key  # type: ignore[arg-type]
        given = jax.random.wrap_key_data(words, impl="threefry2x32")
        keep = kept_by(given, y.shape, dropout_rate)
        y = jnp.where(keep, y / (1 - dropout_rate), 0)
    return y.astype(x.dtype)


def threshold(dropout_rate: float) -> int:
    """An element is kept where its 32 random bits are at least this."""
    return min(round(dropout_rate * 2**32), 2**32 - 1)


def kept(seed: jax.Array, shape: tuple[int, ...], dropout_rate: float) -> jax.Array:
    """Which elements dropout keeps: by the bits that jax.random gives each place in the output for this seed."""
    return kept_by(jax.random.key(seed, impl="threefry2x32"), shape, dropout_rate)


def kept_by(key: jax.Array, shape: tuple[int, ...], dropout_rate: float) -> jax.Array:
    """The same of a threefry key."""
    with jax.threefry_partitionable(True):  # the default; only then do the bits depend on nothing but the place
        bits = jax.random.bits(key, shape, jnp.uint32)
    return bits >= jnp.uint32(threshold(dropout_rate))
