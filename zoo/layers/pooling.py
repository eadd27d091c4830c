"""Average pooling to a given size, and over the whole map. (Pooling by a window is an operator of kernels/.)"""

from __future__ import annotations

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from kernels.runtime.sizes import cdiv

GlobalPool = Literal["avg", "max", "avgmax"]


def global_avg_pool(x: jax.Array) -> jax.Array:
    """Mean over height and width: [batch, height, width, channels] to [batch, channels]."""
    return x.mean((1, 2))


def global_pool(x: jax.Array, kind: GlobalPool) -> jax.Array:
    """Mean, maximum or the mean of both ("avgmax") over height and width: as `global_avg_pool`, [batch, channels]."""
    if kind == "avg":
        return global_avg_pool(x)
    highest = x.max((1, 2))
    return highest if kind == "max" else (global_avg_pool(x) + highest) / 2


def check_global_pool(kind: str | None, num_classes: int) -> GlobalPool | None:
    """A kind of global pooling as a model keeps it; None, or "" as timm has it, for a map that is not pooled.

    Raises:
      ValueError: another kind, or a classifier on a map that is not pooled.
    """
    if not kind and num_classes:
        raise ValueError(
            f"global_pool: {kind!r} given with num_classes={num_classes}; a map that is not pooled needs num_classes=0"
        )
    if kind and kind not in get_args(GlobalPool):
        raise ValueError(f"global_pool: {kind!r} given, it is one of {', '.join(get_args(GlobalPool))} or None")
    return kind or None  # type: ignore[return-value]


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
