"""Average pooling to a given size. (Pooling by a window is an operator of kernels/.)"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels.runtime.sizes import cdiv


def global_avg_pool(x: jax.Array) -> jax.Array:
    """Mean over height and width: [batch, height, width, channels] to [batch, channels]."""
    return x.mean((1, 2))


def adaptive_avg_pool(x: jax.Array, size: int) -> jax.Array:
    """Mean over `size` x `size` bins that cover the map: [batch, height, width, channels] to [batch, size, size, channels].

    Bin i of n rows covers floor(i * n / size) up to ceil((i + 1) * n / size), as in torch: bins overlap where n is not a
    multiple of `size`, and repeat where it is smaller.
    """
    for axis in (1, 2):
        n = x.shape[axis]
        if n == size:
            continue
        bins = [slice(i * n // size, cdiv((i + 1) * n, size)) for i in range(size)]
        x = jnp.stack([x[(slice(None),) * axis + (rows,)].mean(axis) for rows in bins], axis)
    return x
