"""A multilayer perceptron in plain JAX."""

from __future__ import annotations

import jax

from kernels.linear_act.xla import linear_act


def mlp(
    x: jax.Array,
    weights: tuple[jax.Array, ...],
    biases: tuple[jax.Array, ...],
    activation: str | None,
    final_activation: str | None,
    negative_slope: float,
) -> jax.Array:
    for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
        last = i == len(weights) - 1
        x = linear_act(x, w, b, final_activation if last else activation, negative_slope, 0.0, None)
    return x
