"""Batch normalization with its activation and residual, through kernels.batch_norm_act."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import kernels
from kernels.runtime import activations
from zoo.layers import initializers
from zoo.layers.operators import implementation_scope
from zoo.weights.names import TorchTensor


class BatchNormAct(nnx.Module):
    """activation(batch_norm(x) + residual) over [batch, height, width, channels], one mean and variance per channel.

    Training mode normalizes by the batch's statistics, and updates the running statistics by `momentum` towards them, the
    variance towards its unbiased estimate, as in torch (flax keeps the biased one). Evaluation mode uses the running ones.

    Args:
      activation: None, "relu", ...: see kernels.batch_norm_act.
      momentum: weight of the new batch in the running statistics (torch's convention; flax calls 1 - momentum by that name).
      scale_init: initial scale; zeros make a residual block start as the identity.
      dtype: dtype of x and of the result; None for x's own. Statistics are kept in at least float32.
      implementation: see kernels.batch_norm_act.

    Ioffe, Szegedy 2015, Batch normalization.
    """

    def __init__(
        self,
        channels: int,
        *,
        activation: str | None = "relu",
        epsilon: float = 1e-5,
        momentum: float = 0.1,
        scale_init: Callable = initializers.ones,
        dtype: jnp.dtype | type | None = None,
        param_dtype: jnp.dtype | type = jnp.float32,
        implementation: str | None = None,
        rngs: nnx.Rngs,
    ):
        statistics_dtype = jnp.promote_types(param_dtype, jnp.float32)
        self.scale = nnx.Param(scale_init(rngs.params(), (channels,), param_dtype))
        self.bias = nnx.Param(initializers.zeros(None, (channels,), param_dtype))
        self.mean = nnx.BatchStat(initializers.zeros(None, (channels,), statistics_dtype))
        self.var = nnx.BatchStat(initializers.ones(None, (channels,), statistics_dtype))
        self.num_batches_tracked = nnx.BatchStat(jnp.zeros((), jnp.int32))
        self.channels, self.activation = channels, activation
        self.epsilon, self.momentum = epsilon, momentum
        self.dtype, self.implementation = dtype, implementation
        self.use_running_average = False

    def set_view(self, use_running_average: bool | None = None) -> None:
        """Called by nnx.view."""
        if use_running_average is not None:
            self.use_running_average = use_running_average

    def __call__(self, x: jax.Array, residual: jax.Array | None = None) -> jax.Array:
        return merged_batch_norm_act([self], x, residual)

    def torch_tensors(self) -> dict[str, TorchTensor]:
        return {
            "weight": TorchTensor(self.scale),
            "bias": TorchTensor(self.bias),
            "running_mean": TorchTensor(self.mean),
            "running_var": TorchTensor(self.var),
            "num_batches_tracked": TorchTensor(self.num_batches_tracked, dtype="int64"),
        }


class FoldedNorm(nnx.Module):
    """What `zoo.fold_batch_norm` leaves of a `BatchNormAct`: activation(x + residual), in evaluation and in training alike."""

    def __init__(self, activation: str | None, dtype: jnp.dtype | type | None):
        self.activation, self.dtype = activation, dtype

    def __call__(self, x: jax.Array, residual: jax.Array | None = None) -> jax.Array:
        x = x if self.dtype is None else x.astype(self.dtype)
        return activations.apply(self.activation, x if residual is None else x + residual.astype(x.dtype))


def merged_batch_norm_act(layers: list[BatchNormAct], x: jax.Array, residual: jax.Array | None = None) -> jax.Array:
    """Several layers on neighbouring slices of x's channels as one operator call: channels do not see each other.

    All of `layers` share the settings of the first.
    """
    first = layers[0]
    x = x if first.dtype is None else x.astype(first.dtype)
    residual = None if residual is None else residual.astype(x.dtype)

    def joined(name: str) -> jax.Array:
        parts = [getattr(layer, name)[...] for layer in layers]
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts)

    count = x.size // x.shape[-1]
    if not first.use_running_average and count < 2:
        has = "is an empty batch" if count == 0 else "has one value per channel"
        raise ValueError(f"x: shape {x.shape} {has}, batch normalization needs two values or more of each channel in training")
    arrays = (x, joined("scale"), joined("bias"))
    options: dict[str, Any] = {"residual": residual, "activation": first.activation, "epsilon": first.epsilon}
    with implementation_scope(first.implementation):
        if first.use_running_average:
            return kernels.batch_norm_act(*arrays, **options, mean=joined("mean"), var=joined("var"))[0]
        if len(layers) == 1:
            running = jax.lax.stop_gradient((first.mean[...], first.var[...]))
            y, mean, var = kernels.batch_norm_act_running(*arrays, *running, **options, momentum=first.momentum)
        else:
            # The running statistics of several layers would first have to be joined: compiled for the H200, an inception
            # module's step then has two launches more than with the statistics moved below.
            y, mean, var = kernels.batch_norm_act(*arrays, **options)
    if len(layers) > 1:
        mean, var = jax.lax.stop_gradient((mean, var * (count / (count - 1))))
    start = 0
    for layer in layers:
        new = slice(start, start + layer.channels)
        for stored, value in ((layer.mean, mean), (layer.var, var)):
            if len(layers) > 1:
                old = stored[...]
                value = (1 - layer.momentum) * old + layer.momentum * value[new].astype(old.dtype)
            stored.set_value(value)
        layer.num_batches_tracked.set_value(layer.num_batches_tracked[...] + 1)
        start += layer.channels
    return y
