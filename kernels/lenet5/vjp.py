"""lenet5 around its hand-written kernel: vmap and meshes. Under differentiation XLA's code runs, forward and backward."""

from __future__ import annotations

import functools

import jax

from kernels.lenet5 import triton, xla
from kernels.runtime.batching import over_batch
from kernels.runtime.derivatives import differentiable


def lenet5(x: jax.Array, weights: tuple[jax.Array, ...], biases: tuple[jax.Array, ...], implementation: str) -> jax.Array:
    def alone(x, weights, biases):
        layers = [a for pair in zip(weights, biases, strict=True) for a in pair]
        return over_batch(functools.partial(triton.forward, implementation=implementation), shared=len(layers))(x, *layers)[0]

    forward = functools.partial(jax.vjp, xla.lenet5)
    return differentiable(xla.lenet5, forward, lambda pullback, dy: pullback(dy), alone)(x, weights, biases)
