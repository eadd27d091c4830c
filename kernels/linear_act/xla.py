"""Matrix product, bias, activation and dropout in plain JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels.conv.cpu import lax_conv
from kernels.runtime import activations, dispatch
from kernels.runtime.activations import accumulation_dtype
from kernels.runtime.derivatives import differentiable

FEW_ROWS = range(2, 33)  # with which XLA:CPU's product of a large matrix takes twice the time of `by_convolution`
LARGE = 2**23  # elements of a matrix


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
    z = _product(x, w)
    if b is not None:
        z += b.astype(z.dtype)
    y = activations.apply(activation, z, negative_slope)
    if seed is not None or key is not None:
        words = jax.random.key_data(jax.random.key(seed, impl="threefry2x32")) if key is None else key  # type: ignore[arg-type]
        given = jax.random.wrap_key_data(words, impl="threefry2x32")
        keep = kept_by(given, y.shape, dropout_rate)
        y = jnp.where(keep, y / (1 - dropout_rate), 0)
    return y.astype(x.dtype)


def _product(x: jax.Array, w: jax.Array) -> jax.Array:
    few = x.ndim == 2 and x.shape[0] in FEW_ROWS and w.size >= LARGE
    if few and x.dtype == jnp.float32 and dispatch.device().platform == "cpu":
        return by_convolution(x, w)
    return jnp.matmul(x, w, preferred_element_type=accumulation_dtype(x))


def by_convolution(x: jax.Array, w: jax.Array) -> jax.Array:
    """x @ w. XLA:CPU lays w out anew before a product, which few rows do not repay; before a 1x1 convolution it does not."""

    def forward(x, w):
        return lax_conv(x[None, None], w[None, None], (1, 1), ((0, 0), (0, 0)))[0, 0], (x, w)

    return differentiable(jnp.matmul, forward, lambda residuals, dy: (dy @ residuals[1].T, residuals[0].T @ dy))(x, w)


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
