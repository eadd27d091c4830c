"""Batch normalization on a mesh, in plain JAX: the sums are reduced across the mesh axis over which the batch is sharded, if
any.

It replaces the kernels of triton.py there: their sums are those of one device, and their grid barrier could wait for
multiprocessors that a collective occupies. XLA's fusions reach the floor of the streaming form, and only two all-reduces of a
few kilobytes, forward and backward, cross the mesh.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels.batch_norm_act import xla
from kernels.batch_norm_act.spec import Cotangents, Gradients, Inputs, Outputs, Running, Spec
from kernels.runtime import activations


def _devices(axis: str | None) -> int:
    return 1 if axis is None else jax.lax.psum(1, axis)


def forward(axis: str | None, spec: Spec, inputs: Inputs) -> Outputs:
    """As triton.forward, with statistics over the whole mesh axis; None: the batch is whole."""
    x, residual, scale, bias, running = inputs
    mean, var = xla.moments(x, axis)
    z = xla.before_activation(x, scale, bias, residual, spec.epsilon, mean, var)
    y = activations.apply(spec.activation, z).astype(x.dtype)
    moved = signs = None
    if running is not None:
        moved = Running(*xla.moved(running, mean, var, x.size // x.shape[-1] * _devices(axis), spec.momentum))
    if spec.has_signs:
        signs = jnp.packbits(z > 0 if spec.activation == "relu" else z >= 0, axis=-1, bitorder="little")
    return Outputs(y, jnp.stack([mean, var]), moved, signs)


def backward(axis: str | None, spec: Spec, given: Cotangents) -> Gradients:
    """As triton.backward."""
    x, scale, bias, (mean, var) = given.x, given.scale, given.bias, given.statistics
    wide, g = x.astype(jnp.float32), given.dy.astype(jnp.float32)
    rstd = jax.lax.rsqrt(var + spec.epsilon)
    normalized = (wide - mean) * rstd
    if given.signs is not None:
        up = jnp.unpackbits(given.signs, axis=-1, bitorder="little").astype(bool)
        g = jnp.where(up, g, (0.0 if spec.activation == "relu" else activations.SLOPE) * g)
    else:
        z = xla.before_activation(x, scale, bias, given.residual, spec.epsilon, mean, var).astype(jnp.float32)
        g = jax.vjp(lambda z: activations.apply(spec.activation, z), z)[1](g)[0]
    axes = tuple(range(x.ndim - 1))
    dbias, dscale = jnp.sum(g, axes), jnp.sum(g * normalized, axes)
    if axis is not None:
        dbias, dscale = jax.lax.psum((dbias, dscale), axis)
    count = x.size // x.shape[-1] * _devices(axis)
    slope = scale * rstd
    dx = slope * (g - dbias / count - normalized * (dscale / count))
    dx += given.dmean / count + 2 * given.dvar / count * (wide - mean)
    return Gradients(dx.astype(x.dtype), dscale, dbias, g.astype(x.dtype) if spec.has_residual else None)
