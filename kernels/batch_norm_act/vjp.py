"""batch_norm_act around its hand-written kernels, those of triton.py: derivative, batches and meshes.

Kept for the backward pass: x, the statistics and, of a residual, the signs of what the activation is applied to (relu and
leaky_relu, channels a multiple of 8) or the residual itself.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from kernels.batch_norm_act import sharded, triton
from kernels.runtime.batching import over_batch


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7, 8))
def batch_norm_act(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    residual: jax.Array | None,
    running: tuple[jax.Array, jax.Array] | None,
    activation: str | None,
    epsilon: float,
    momentum: float,
    interpret: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Training form: y, mean, var; with `running`, a mean and a variance, those two moved by `momentum` instead."""
    return _forward(x, scale, bias, residual, running, activation, epsilon, momentum, interpret)[0]


def _forward(x, scale, bias, residual, running, activation, epsilon, momentum, interpret):
    signs = residual is not None and activation in ("relu", "leaky_relu") and x.shape[-1] % 8 == 0
    static = {"activation": activation, "epsilon": epsilon, "momentum": momentum, "signs": signs}
    batched = [x] if residual is None else [x, residual]
    per_channel = [scale, bias, *(running or ())]

    def split(arrays):
        x, *rest = arrays[: len(batched)]
        scale, bias, *running = arrays[len(batched) :]
        return x, rest[0] if rest else None, scale, bias, running

    def on_device(*arrays):
        return functools.partial(triton.forward, interpret=interpret, **static)(*split(arrays))

    def on_shard(axis, *arrays):
        return sharded.forward(axis, *split(arrays), **static)

    whole = (1, 2, 3) if running else (1,)
    run = over_batch(on_device, shared=len(per_channel), whole=whole, on_shard=on_shard, cooperative=True)
    y, statistics, *others = run(*batched, *per_channel)
    kept = None if signs or activation is None else residual  # the residual itself only where its values are needed again
    had_residual = None if residual is None else ()  # told by structure: a bool would become an array
    residuals = (x, scale, bias, statistics, kept, others[-1] if signs else None, had_residual, running)
    mean, var = others[:2] if running else statistics
    return (y, mean, var), residuals


def _backward(activation, epsilon, momentum, interpret, residuals, cotangents):
    x, scale, bias, statistics, residual, positive, had_residual, running = residuals
    wants_residual = had_residual is not None
    dy, dmean, dvar = cotangents
    if running:  # no gradient flows through them
        dmean = dvar = jnp.zeros_like(statistics[0])
    optional = [a for a in (residual, positive) if a is not None]
    static = {"activation": activation, "epsilon": epsilon}

    def split(arrays):
        rows = arrays[:-5]
        names = ("x", "dy", "residual", "positive", "scale", "bias", "statistics", "dmean", "dvar")
        values = (*rows[:2], None if residual is None else rows[2], None if positive is None else rows[-1], *arrays[-5:])
        return dict(zip(names, values, strict=True))

    def on_device(*arrays):
        return triton.backward(**split(arrays), wants_residual=wants_residual, interpret=interpret, **static)

    def on_shard(axis, *arrays):
        return sharded.backward(axis, **split(arrays), **static)[: 4 if wants_residual else 3]

    run = over_batch(on_device, shared=5, whole=(1, 2), on_shard=on_shard, cooperative=True)
    dx, dscale, dbias, *dresidual = run(x, dy, *optional, scale, bias, statistics, dmean, dvar)
    return (
        *(dx, dscale.astype(scale.dtype), dbias.astype(bias.dtype)),
        dresidual[0] if wants_residual else None,
        jax.tree.map(jnp.zeros_like, running),
    )


batch_norm_act.defvjp(_forward, _backward)
