"""Batch normalization, an optional residual and an activation in one operator (Ioffe and Szegedy 2015)."""

from __future__ import annotations

import dataclasses
import math

import jax

from kernels.batch_norm_act import xla
from kernels.batch_norm_act.spec import Running, Spec
from kernels.runtime import activations, checks, dispatch

IMPLEMENTATIONS = ("xla", *dispatch.TRITON)
COOPERATIVE = ("triton",)  # has a barrier across its grid
ROWS, CHANNELS = 2**30, 2**20  # which are numbered in 32 bits


@dispatch.operator(batch_axes=(0, None, None))
def batch_norm_act(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    residual: jax.Array | None = None,
    activation: str | None = "relu",
    epsilon: float = 1e-5,
    mean: jax.Array | None = None,
    var: jax.Array | None = None,
    running: tuple[jax.Array, jax.Array] | None = None,
    momentum: float = 0.1,
    implementation: str | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """activation((x - mean) / sqrt(var + epsilon) * scale + bias + residual), with the mean and variance of each channel.

    Without `mean` and `var` (training) they are taken over all leading axes of x, in float32 at least and by a method that
    does not cancel when the mean is large beside the deviation; the variance is the biased one (divided by the count), which
    normalizes. torch keeps the unbiased one as its running variance: multiply by count / (count - 1). With them (evaluation)
    they are folded into one scale and shift per channel and returned as given.

    Ioffe, Szegedy 2015, Batch normalization. Floor, in passes over an array like x: in training 2 forward and 3 backward where
    slices of channels stay in a cache between their two readings, else 3 and 5; a residual adds one to each.

    Args:
      x: [..., channels], floating point.
      scale, bias: [channels], floating point of any width.
      residual: added before the activation; x's shape, and for a hand-written kernel its dtype.
      activation: "relu", "leaky_relu" (slope 0.01), "tanh", "gelu" or None.
      epsilon: added to the variance.
      mean, var: [channels], both or neither.
      running: the running mean and variance, [channels] each, in training: their values after this batch are returned in the
        place of its own mean and variance, from the same launch. They move by `momentum` towards the batch's mean and unbiased
        variance, as torch's do, and have no gradient.
      momentum: weight of this batch in `running`.
      implementation: see `kernels.runtime.dispatch`. In evaluation all are the same: one fusion of XLA's.

    Returns:
      y like x, and mean and var, [channels], float32 (float64 where x is); with `running`, that pair after this batch,
      each in its own dtype.

    Raises:
      ValueError: a shape does not fit, the activation is unknown, only one of mean and var is given, or
        they and `running` are.
      TypeError: an array is not floating point.
      ImplementationError: the implementation asked for does not exist or cannot run, for reasons that it lists.
    """
    if x.ndim < 1:
        raise ValueError(f"x: shape {x.shape} is not [..., channels]")
    activations.check(activation)
    if (mean is None) != (var is None):
        raise ValueError("mean, var: give both (evaluation) or neither (training)")
    if running is not None and mean is not None:
        raise ValueError("running: it is for training, and mean and var, which are for evaluation, are given")
    running_mean, running_var = running or (None, None)
    per_channel = (("mean", mean), ("var", var), ("running[0]", running_mean), ("running[1]", running_var))
    for name, array in (("x", x), ("scale", scale), ("bias", bias), ("residual", residual), *per_channel):
        if array is None:
            continue
        checks.floating(name, array)
        if name == "residual":
            checks.shape(name, array, x.shape, "the shape of x")
        elif name != "x":
            checks.shape(name, array, x.shape[-1:], f"one value per channel of x, whose shape is {x.shape}")
    reason = checks.hand_written(x, scale, bias, residual, running_mean, running_var)
    if residual is not None and residual.dtype != x.dtype:
        reason = f"it takes a residual of x's dtype, {x.dtype}, and was given {residual.dtype}"
    rows = math.prod(x.shape[:-1])
    if checks.exceeds(rows, ROWS) or checks.exceeds(x.shape[-1], CHANNELS):
        reason = f"it takes up to {ROWS} rows of {CHANNELS} channels, and was given {rows} of {x.shape[-1]}"
    has = {"xla": None, **dict.fromkeys(dispatch.TRITON, reason)}
    chosen = dispatch.choose("batch_norm_act", implementation, has, checks.shape_class(x), cooperative=COOPERATIVE)
    if mean is not None and var is not None:
        return xla.normalize(x, scale, bias, residual, activation, epsilon, mean, var), mean, var
    if chosen != "xla" and x.size:
        from kernels.batch_norm_act import vjp

        spec = Spec.of(x, residual, activation, epsilon, implementation=chosen)
        if running is None:
            return vjp.normalized(spec, x, scale, bias, residual)
        spec = dataclasses.replace(spec, momentum=float(momentum))
        y, moved = vjp.normalized_and_moved(spec, x, scale, bias, residual, Running(*running))
        return y, *moved
    y, batch_mean, batch_var = xla.batch_norm_act(x, scale, bias, residual, activation, epsilon)
    if running is None:
        return y, batch_mean, batch_var
    return y, *xla.moved(running, batch_mean, batch_var, x.size // x.shape[-1], momentum)
