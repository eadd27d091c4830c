"""Named tuples passed between batch_norm_act's derivative, its kernels and its form for meshes.

Arrays flatten in the order of the fields, absent ones being None: first those with rows, then those with one value per channel.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a launch is specialized for, besides its shapes."""

    activation: str | None
    epsilon: float
    has_residual: bool
    has_signs: bool  # whether the signs of what the activation is applied to are among the residuals, one bit per element
    implementation: str
    momentum: float = 0.0  # of running statistics, where there are any

    @staticmethod
    def of(x: jax.Array, residual: jax.Array | None, activation: str | None, epsilon: float, implementation: str) -> Spec:
        signs = residual is not None and activation in ("relu", "leaky_relu") and x.shape[-1] % 8 == 0
        return Spec(activation, epsilon, residual is not None, signs, implementation)


class Running(NamedTuple):
    mean: jax.Array
    var: jax.Array


class Inputs(NamedTuple):
    """Of the forward pass. Of them x and residual have rows."""

    x: jax.Array
    residual: jax.Array | None
    scale: jax.Array
    bias: jax.Array
    running: Running | None


class Outputs(NamedTuple):
    """Of the forward pass: statistics are the batch's mean and variance, [2, channels]; running is as it is after the batch."""

    y: jax.Array
    statistics: jax.Array
    running: Running | None
    signs: jax.Array | None


class Cotangents(NamedTuple):
    """What the backward pass starts from: the residuals, and the gradients of y, mean and variance."""

    x: jax.Array
    dy: jax.Array
    residual: jax.Array | None
    signs: jax.Array | None
    scale: jax.Array
    bias: jax.Array
    statistics: jax.Array
    dmean: jax.Array
    dvar: jax.Array


class Gradients(NamedTuple):
    x: jax.Array
    scale: jax.Array
    bias: jax.Array
    residual: jax.Array | None
