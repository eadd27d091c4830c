"""mlp around its hand-written kernel: vmap and meshes. Under differentiation XLA's code runs, forward and backward."""

from __future__ import annotations

import functools

import jax

from kernels.mlp import triton, xla
from kernels.runtime.batching import over_batch
from kernels.runtime.derivatives import differentiable


def mlp(
    x: jax.Array,
    weights: tuple[jax.Array, ...],
    biases: tuple[jax.Array, ...],
    activation: str | None,
    final_activation: str | None,
    negative_slope: float,
    implementation: str,
) -> jax.Array:
    """x [rows, in] and two layers."""
    run = functools.partial(
        triton.forward,
        activation=activation,
        final=final_activation,
        negative_slope=negative_slope,
        implementation=implementation,
    )

    def alone(x, weights, biases):
        return over_batch(run, shared=4)(x, weights[0], biases[0], weights[1], biases[1])[0]

    def plain(x, weights, biases):
        return xla.mlp(x, weights, biases, activation, final_activation, negative_slope)

    forward = functools.partial(jax.vjp, plain)
    return differentiable(plain, forward, lambda pullback, dy: pullback(dy), alone)(x, weights, biases)
