"""Average pooling. (Max pooling is an operator of kernels/.)"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def global_avg_pool(x: jax.Array) -> jax.Array:
    """Mean over height and width: [batch, height, width, channels] to [batch, channels]."""
    return x.mean((1, 2))


def avg_pool(x: jax.Array, window: int, stride: int) -> jax.Array:
    """Mean of each window, without padding: [batch, height, width, channels] to [batch, height', width', channels]."""
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    summed = jax.lax.reduce_window(
        x.astype(dtype), np.zeros((), dtype), jax.lax.add, (1, window, window, 1), (1, stride, stride, 1), "VALID"
    )
    return (summed / window**2).astype(x.dtype)


def adaptive_avg_pool(x: jax.Array, size: int) -> jax.Array:
    """Mean over `size` x `size` bins that cover the map: [batch, height, width, channels] to [batch, size, size, channels].

    Bin i of n rows covers floor(i * n / size) up to ceil((i + 1) * n / size), as in torch: bins overlap where n is not a
    multiple of `size`, and repeat where it is smaller.
    """
    for axis in (1, 2):
        n = x.shape[axis]
        if n == size:
            continue
        bins = [slice(i * n // size, -(-(i + 1) * n // size)) for i in range(size)]
        x = jnp.stack([x[(slice(None),) * axis + (rows,)].mean(axis) for rows in bins], axis)
    return x
