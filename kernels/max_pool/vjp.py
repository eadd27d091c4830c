"""max_pool around its hand-written kernels: derivative, batches and meshes. Kept for the backward pass: a byte an output."""

from __future__ import annotations

import functools

import jax

from kernels.max_pool import triton, xla
from kernels.max_pool.xla import Pads, Pair
from kernels.runtime.batching import over_batch


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def max_pool(x: jax.Array, window: Pair, strides: Pair, pads: Pads, interpret: bool) -> jax.Array:
    return _forward(x, window, strides, pads, interpret)[0]


def _forward(x, window, strides, pads, interpret):
    y, position = over_batch(functools.partial(triton.forward, window=window, strides=strides, pads=pads, interpret=interpret))(
        x
    )
    return y, (position, x.shape[1:3])


def _backward(window, strides, pads, interpret, residuals, dy):
    position, size = residuals
    run = functools.partial(triton.backward, size=size, window=window, strides=strides, pads=pads, interpret=interpret)
    return (over_batch(run)(dy, position)[0],)


max_pool.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def max_pool_where_differentiated(x: jax.Array, window: Pair, strides: Pair, pads: Pads) -> jax.Array:
    """XLA's, which it fuses with what is around it, as long as nobody asks for the gradient; then the kernels here."""
    return xla.max_pool(x, window, strides, pads)


max_pool_where_differentiated.defvjp(
    lambda x, window, strides, pads: _forward(x, window, strides, pads, False),
    lambda window, strides, pads, residuals, dy: _backward(window, strides, pads, False, residuals, dy),
)
