"""Batch normalization, an optional residual and an activation in one operator (Ioffe and Szegedy 2015).

Two functions: `batch_norm_act` gives the batch's mean and variance, or normalizes by given ones; `batch_norm_act_running` moves
running statistics in the same launch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

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
    implementation: str | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """activation((x - mean) / sqrt(var + epsilon) * scale + bias + residual), with the mean and variance of each channel.

    Without `mean` and `var` (training) they are taken over all leading axes of x, in float32 at least and by a method that
    does not cancel when the mean is large beside the deviation; the variance is the biased one (divided by the count), which
    normalizes. torch keeps the unbiased one as its running variance: multiply by count / (count - 1), or take
    `batch_norm_act_running`. With them (evaluation) they are folded into one scale and shift per channel and returned as given.

    Ioffe, Szegedy 2015, Batch normalization. Floor, in passes over an array like x: in training 2 forward and 3 backward where
    slices of channels stay in a cache between their two readings, else 3 and 5; a residual adds one to each.

    Args:
      x: [..., channels], floating point.
      scale, bias: [channels], floating point of any width.
      residual: added before the activation; x's shape, and for a hand-written kernel its dtype.
      activation: "relu", "leaky_relu" (slope 0.01), "tanh", "gelu" or None.
      epsilon: added to the variance.
      mean, var: [channels], both or neither.
      implementation: see `kernels.runtime.dispatch`. In evaluation all are the same: one fusion of XLA's.

    Returns:
      y like x, and mean and var, [channels], float32 (float64 where x is).

    Raises:
      ValueError: a shape does not fit, the activation is unknown, or only one of mean and var is given.
      TypeError: an array is not floating point.
      ImplementationError: the implementation asked for does not exist or cannot run, for reasons that it lists.
    """
    if (mean is None) != (var is None):
        raise ValueError("mean, var: give both (evaluation) or neither (training)")
    chosen = _choose(x, scale, bias, residual, activation, implementation, {"mean": mean, "var": var})
    if mean is not None and var is not None:
        return xla.normalize(x, scale, bias, residual, activation, epsilon, mean, var), mean, var
    if chosen == "xla" or not x.size:
        return xla.batch_norm_act(x, scale, bias, residual, activation, epsilon)
    from kernels.batch_norm_act import vjp

    return vjp.normalized(Spec.of(x, residual, activation, epsilon, implementation=chosen), x, scale, bias, residual)


@dispatch.operator(batch_axes=(0, None, None))
def batch_norm_act_running(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    running_mean: jax.Array,
    running_var: jax.Array,
    residual: jax.Array | None = None,
    activation: str | None = "relu",
    epsilon: float = 1e-5,
    momentum: float = 0.1,
    implementation: str | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`batch_norm_act` in training, and the running statistics after this batch from the same launch.

    They move by `momentum` towards the batch's mean and unbiased variance, as torch's do, and have no gradient.

    Args:
      x, scale, bias, residual, activation, epsilon, implementation: see `batch_norm_act`.
      running_mean, running_var: [channels], floating point.
      momentum: weight of this batch.

    Returns:
      y like x, and the running mean and variance after this batch, [channels], each in its own dtype.

    Raises:
      ValueError, TypeError, ImplementationError: as `batch_norm_act`.
    """
    running = Running(running_mean, running_var)
    given = {"running_mean": running_mean, "running_var": running_var}
    chosen = _choose(x, scale, bias, residual, activation, implementation, given)
    if chosen == "xla" or not x.size:
        y, mean, var = xla.batch_norm_act(x, scale, bias, residual, activation, epsilon)
        return y, *xla.moved(running, mean, var, x.size // x.shape[-1], momentum)
    from kernels.batch_norm_act import vjp

    spec = Spec.of(x, residual, activation, epsilon, implementation=chosen)
    y, moved = vjp.normalized_and_moved(dataclasses.replace(spec, momentum=float(momentum)), x, scale, bias, residual, running)
    return y, *moved


def _choose(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    residual: jax.Array | None,
    activation: str | None,
    implementation: str | None,
    statistics: Mapping[str, jax.Array | None],
) -> str:
    """The implementation to run, once all arguments are found to fit."""
    if x.ndim < 1:
        raise ValueError(f"x: shape {x.shape} is not [..., channels]")
    activations.check(activation)
    for name, array in {"x": x, "scale": scale, "bias": bias, "residual": residual, **statistics}.items():
        if array is None:
            continue
        checks.floating(name, array)
        if name == "residual":
            checks.shape(name, array, x.shape, "the shape of x")
        elif name != "x":
            checks.shape(name, array, x.shape[-1:], f"one value per channel of x, whose shape is {x.shape}")
    running = [array for name, array in statistics.items() if name.startswith("running")]
    reason = checks.hand_written(x, scale, bias, residual, *running)
    if residual is not None and residual.dtype != x.dtype:
        reason = f"it takes a residual of x's dtype, {x.dtype}, and was given {residual.dtype}"
    rows = math.prod(x.shape[:-1])
    if checks.exceeds(rows, ROWS) or checks.exceeds(x.shape[-1], CHANNELS):
        reason = f"it takes up to {ROWS} rows of {CHANNELS} channels, and was given {rows} of {x.shape[-1]}"
    has = {"xla": None, **dict.fromkeys(dispatch.TRITON, reason)}
    return dispatch.choose("batch_norm_act", implementation, has, checks.shape_class(x), cooperative=COOPERATIVE)
