"""max_pool around its hand-written kernels: derivative, vmap and meshes. The only residual is one byte per output."""

from __future__ import annotations

import functools

import jax

from kernels.max_pool import triton, xla
from kernels.max_pool.xla import Pads, Pair
from kernels.runtime.batching import over_batch
from kernels.runtime.derivatives import differentiable


def max_pool(x: jax.Array, window: Pair, strides: Pair, pads: Pads, implementation: str) -> jax.Array:
    return _with_derivative(x.shape[1:3], window, strides, pads, implementation)(x)


def max_pool_where_differentiated(x: jax.Array, window: Pair, strides: Pair, pads: Pads, implementation: str) -> jax.Array:
    """XLA's, which it fuses with what is around it, as long as nobody asks for the gradient; then the kernels here."""
    alone = functools.partial(xla.max_pool, window=window, strides=strides, pads=pads)
    return _with_derivative(x.shape[1:3], window, strides, pads, implementation, alone)(x)


def _with_derivative(size, window, strides, pads, implementation, alone=None):
    static = {"window": window, "strides": strides, "pads": pads, "implementation": implementation}

    def forward(x):
        return over_batch(functools.partial(triton.forward, **static))(x)

    def backward(position, dy):
        return over_batch(functools.partial(triton.backward, size=size, **static))(dy, position)[:1]

    return differentiable(lambda x: xla.maximum(x, window, strides, pads), forward, backward, alone)
