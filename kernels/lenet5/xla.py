"""LeNet-5 in plain JAX."""

from __future__ import annotations

import jax

from kernels.conv.xla import conv
from kernels.max_pool.xla import max_pool
from kernels.mlp.xla import mlp

VALID = ((0, 0), (0, 0))


def lenet5(x: jax.Array, weights: tuple[jax.Array, ...], biases: tuple[jax.Array, ...]) -> jax.Array:
    for w, b in zip(weights[:2], biases[:2], strict=True):
        x = jax.nn.relu(conv(x, w, (1, 1), VALID, 1, (1, 1)) + b.astype(x.dtype))
        x = max_pool(x, (2, 2), (2, 2), VALID)
    return mlp(x.reshape(x.shape[0], 400), weights[2:], biases[2:], "relu", None, 0.0)
