"""Batch normalization on one device of several: plain JAX, with the sums reduced across the mesh axis that the batch is sharded
over, if it is.

The kernels of triton.py hold their sums to themselves, and their barrier may wait for multiprocessors that a collective
holds; so under a mesh this stands in: XLA's fusions are at the floor of the
streaming form, and two all-reduces of a few kilobytes each way are all that crosses the mesh.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels.batch_norm_act import xla
from kernels.runtime import activations


def _devices(axis):
    return 1 if axis is None else jax.lax.psum(1, axis)


def forward(axis, x, residual, scale, bias, running, activation, epsilon, momentum, signs):
    """y, the mean and variance over the whole mesh axis (None: the batch is whole), [2, channels], `running` after them, and,
    where `signs`, the signs."""
    mean, var = xla.moments(x, axis)
    z = xla.before_activation(x, scale, bias, residual, epsilon, mean, var)
    y = activations.apply(activation, z).astype(x.dtype)
    statistics = jnp.stack([mean, var])
    moved = xla.moved(running, mean, var, x.size // x.shape[-1] * _devices(axis), momentum) if running else ()
    if not signs:
        return [y, statistics, *moved]
    return [y, statistics, *moved, jnp.packbits(z > 0 if activation == "relu" else z >= 0, axis=-1, bitorder="little")]


def backward(axis, x, dy, residual, positive, scale, bias, statistics, dmean, dvar, activation, epsilon):
    """dx, dscale, dbias and the gradient of z, which is the residual's."""
    mean, var = statistics
    wide, g = x.astype(jnp.float32), dy.astype(jnp.float32)
    rstd = jax.lax.rsqrt(var + epsilon)
    normalized = (wide - mean) * rstd
    if positive is not None:
        up = jnp.unpackbits(positive, axis=-1, bitorder="little").astype(bool)
        g = jnp.where(up, g, (0.0 if activation == "relu" else activations.SLOPE) * g)
    else:
        z = xla.before_activation(x, scale, bias, residual, epsilon, mean, var).astype(jnp.float32)
        g = jax.vjp(lambda z: activations.apply(activation, z), z)[1](g)[0]
    axes = tuple(range(x.ndim - 1))
    dbias, dscale = jnp.sum(g, axes), jnp.sum(g * normalized, axes)
    if axis is not None:
        dbias, dscale = jax.lax.psum((dbias, dscale), axis)
    count = x.size // x.shape[-1] * _devices(axis)
    slope = scale * rstd
    dx = slope * (g - dbias / count - normalized * (dscale / count)) + dmean / count + 2 * dvar / count * (wide - mean)
    return [dx.astype(x.dtype), dscale, dbias, g.astype(x.dtype)]
