"""Average pooling in plain JAX."""

from __future__ import annotations

import jax
import numpy as np

from kernels.runtime.activations import accumulation_dtype

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]


def avg_pool(x: jax.Array, window: Pair, strides: Pair, pads: Pads, reach: Pads, count_include_pad: bool) -> jax.Array:
    """The sums of the windows over what counts of each. reach: `pads` and, at the end, what the last windows need besides."""
    dtype = accumulation_dtype(x)
    sums = jax.lax.reduce_window(
        x.astype(dtype), np.zeros((), dtype), jax.lax.add, (1, *window, 1), (1, *strides, 1), ((0, 0), *reach, (0, 0))
    )
    rows, columns = (
        _counted(n, w, s, pad if count_include_pad else (0, 0), pad[0], outputs)
        for n, w, s, pad, outputs in zip(x.shape[1:3], window, strides, pads, sums.shape[1:3], strict=True)
    )
    return (sums / (rows[:, None, None] * columns[:, None]).astype(dtype)).astype(x.dtype)


def _counted(size: int, window: int, stride: int, counted: Pair, before: int, outputs: int) -> np.ndarray:
    """How many elements of each window count: those of the input and of `counted` padding around it."""
    starts = stride * np.arange(outputs) - before
    return np.minimum(starts + window, size + counted[1]) - np.maximum(starts, -counted[0])
