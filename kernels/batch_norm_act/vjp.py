"""batch_norm_act around the hand-written kernels of triton.py: derivative, vmap and meshes.

Residuals of the backward pass: x and the statistics and, where a residual is added, the signs of the activation's input (relu
and leaky_relu, channels a multiple of 8) or else the added array itself.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kernels.batch_norm_act import sharded, triton, xla
from kernels.batch_norm_act.spec import Cotangents, Gradients, Inputs, Outputs, Running, Spec
from kernels.runtime.batching import over_batch
from kernels.runtime.derivatives import differentiable


class Residuals(NamedTuple):
    x: jax.Array
    scale: jax.Array
    bias: jax.Array
    statistics: jax.Array
    residual: jax.Array | None
    signs: jax.Array | None


def normalized(
    spec: Spec, x: jax.Array, scale: jax.Array, bias: jax.Array, residual: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """y, and the mean and variance of this batch."""

    def plain(x, scale, bias, residual):
        return xla.batch_norm_act(x, scale, bias, residual, spec.activation, spec.epsilon)

    def forward(x, scale, bias, residual):
        outputs, residuals = _forward(spec, Inputs(x, residual, scale, bias, None))
        return (outputs.y, *outputs.statistics), residuals

    return differentiable(plain, forward, lambda residuals, given: _backward(spec, residuals, *given))(x, scale, bias, residual)


def normalized_and_moved(
    spec: Spec, x: jax.Array, scale: jax.Array, bias: jax.Array, residual: jax.Array | None, running: Running
) -> tuple[jax.Array, Running]:
    """y, and `running` moved by spec.momentum towards this batch: no gradient flows through that."""

    def plain(x, scale, bias, residual, running):
        y, mean, var = xla.batch_norm_act(x, scale, bias, residual, spec.activation, spec.epsilon)
        moved = xla.moved(running, mean, var, x.size // x.shape[-1], spec.momentum)
        return y, Running(*jax.lax.stop_gradient(moved))

    def forward(x, scale, bias, residual, running):
        outputs, residuals = _forward(spec, Inputs(x, residual, scale, bias, running))
        return (outputs.y, outputs.running), (residuals, running)

    def backward(saved, given):
        residuals, running = saved
        none = jnp.zeros_like(residuals.statistics[0])
        return *_backward(spec, residuals, given[0], none, none), jax.tree.map(jnp.zeros_like, running)

    return differentiable(plain, forward, backward)(x, scale, bias, residual, running)


def _forward(spec: Spec, inputs: Inputs) -> tuple[Outputs, Residuals]:
    arrays, structure = jax.tree.flatten(inputs)
    results = Outputs(0, 0, inputs.running and Running(0, 0), 0 if spec.has_signs else None)  # type: ignore[arg-type]
    run = over_batch(
        lambda *arrays: jax.tree.leaves(triton.forward(spec, jax.tree.unflatten(structure, arrays))),
        on_shard=lambda axis, *arrays: jax.tree.leaves(sharded.forward(axis, spec, jax.tree.unflatten(structure, arrays))),
        shared=len(arrays) - len(jax.tree.leaves((inputs.x, inputs.residual))),
        whole=(1, 2, 3) if inputs.running else (1,),
        cooperative=True,
    )
    outputs = jax.tree.unflatten(jax.tree.structure(results), run(*arrays))
    # The residual itself only where its values are needed again.
    residual = None if spec.has_signs or spec.activation is None else inputs.residual
    return outputs, Residuals(inputs.x, inputs.scale, inputs.bias, outputs.statistics, residual, outputs.signs)


def _backward(spec: Spec, residuals: Residuals, dy: jax.Array, dmean: jax.Array, dvar: jax.Array) -> Gradients:
    given = Cotangents(
        residuals.x, dy, residuals.residual, residuals.signs, residuals.scale, residuals.bias, residuals.statistics, dmean, dvar
    )
    arrays, structure = jax.tree.flatten(given)
    results = Gradients(0, 0, 0, 0 if spec.has_residual else None)  # type: ignore[arg-type]
    run = over_batch(
        lambda *arrays: jax.tree.leaves(triton.backward(spec, jax.tree.unflatten(structure, arrays))),
        on_shard=lambda axis, *arrays: jax.tree.leaves(sharded.backward(axis, spec, jax.tree.unflatten(structure, arrays))),
        shared=len(arrays) - len(jax.tree.leaves(given[:4])),
        whole=(1, 2),
        cooperative=True,
    )
    found = jax.tree.unflatten(jax.tree.structure(results), run(*arrays))
    return found._replace(scale=found.scale.astype(residuals.scale.dtype), bias=found.bias.astype(residuals.bias.dtype))
