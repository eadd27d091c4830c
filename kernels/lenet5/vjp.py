"""lenet5 around its hand-written kernel: batches and meshes; differentiated, it is XLA that runs, forward and backward."""

from __future__ import annotations

import functools

import jax

from kernels.lenet5 import triton, xla
from kernels.runtime.batching import over_batch


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def lenet5(x: jax.Array, weights: tuple[jax.Array, ...], biases: tuple[jax.Array, ...], interpret: bool) -> jax.Array:
    layers = [a for pair in zip(weights, biases, strict=True) for a in pair]
    return over_batch(functools.partial(triton.forward, interpret=interpret), shared=len(layers))(x, *layers)[0]


def _forward(x, weights, biases, interpret):
    return jax.vjp(xla.lenet5, x, weights, biases)


def _backward(interpret, pullback, dy):
    return pullback(dy)


lenet5.defvjp(_forward, _backward)
