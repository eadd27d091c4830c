"""linear_act around the hand-written kernels of triton.py and pallas.py: derivative, vmap and meshes.

Backward, one kernel (triton.py) computes the gradient of the activation's input from dy and y alone (for gelu from dy and that
input, a residual in y's dtype), together with the bias's gradient; the two products are XLA's. Computed from y, tanh's
derivative 1 - y**2 is as exact as one rounding of y, which is less than its own precision where it is small.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from kernels.linear_act import triton, xla
from kernels.linear_act.xla import threshold
from kernels.runtime.batching import over_batch
from kernels.runtime.derivatives import differentiable


def linear_act(
    x: jax.Array,
    w: jax.Array,
    b: jax.Array | None,
    key: jax.Array | None,
    activation: str | None,
    negative_slope: float,
    dropout_rate: float,
    precision: str | None,
    implementation: str,
) -> jax.Array:
    """x [rows, in], w [in, out], b [out]; key is the two words of a random key, where there is dropout; precision is that of
    the backward pass's products."""
    options = activation, negative_slope, dropout_rate, precision, implementation

    def plain(x, w, b, key):
        return xla.linear_act(x, w, b, activation, negative_slope, dropout_rate, None, key)

    def alone(x, w, b, key):
        return _run(False, x, w, b, key, *options)[0]

    def forward(x, w, b, key):
        y, seen = _run(True, x, w, b, key, *options)
        return y, (x, w, b, key, seen)

    return differentiable(plain, forward, functools.partial(_backward, *options), alone)(x, w, b, key)


def _static(activation, negative_slope, dropout_rate, for_gradient=True):
    return {
        "ACTIVATION": activation,
        "SLOPE": float(negative_slope),
        "KEEP": 1.0 - dropout_rate,
        "THRESHOLD": threshold(dropout_rate),
        "HAS_BEFORE": activation == "gelu" and for_gradient,
    }


def _state(key, first_row):
    words = jnp.zeros((2,), jnp.uint32) if key is None else key
    return jnp.concatenate([words, jnp.asarray(first_row, jnp.uint32)[None]])


def _first_row(axis, rows):
    return jax.lax.axis_index(axis) * rows


def _forward(implementation: str) -> Callable:
    """The forward pass's launch: of the kernel in Pallas where that is named, else of Triton's."""
    if implementation != "pallas":
        return triton.forward
    from kernels.linear_act import pallas

    return pallas.forward


def _run(for_gradient, x, w, b, key, activation, negative_slope, dropout_rate, precision, implementation):
    """y, and what the backward pass looks at."""
    forward = _forward(implementation)
    static = _static(activation, negative_slope, dropout_rate, for_gradient)
    shared = [a for a in (w, b, key) if a is not None]

    def run(first_row, x, w, *optional):
        bias = None if b is None else optional[0]
        return forward(x, w, bias, _state(None if key is None else optional[-1], first_row), implementation, static)

    y, *before = over_batch(
        functools.partial(run, 0),
        shared=len(shared),
        on_shard=lambda axis, x, *rest: run(_first_row(axis, x.shape[0]), x, *rest),
        joined=key is None,
    )(x, *shared)
    return y, before[0] if before else y


def _backward(activation, negative_slope, dropout_rate, precision, implementation, residuals, dy):
    x, w, b, key, seen = residuals
    of_triton = "triton" if implementation == "pallas" else implementation
    static = _static(activation, negative_slope, dropout_rate)

    def run(first_row, dy, seen, *key):
        return triton.backward(dy, seen, _state(key[0] if key else None, first_row), of_triton, static)

    def on_shard(axis, dy, *rest):
        dz, db = run(_first_row(axis, dy.shape[0]), dy, *rest)
        return dz, jax.lax.psum(db, axis)

    keys = () if key is None else (key,)
    if activation is None and key is None:
        dz, db = dy, jnp.sum(dy, 0, dtype=jnp.float32)  # unused and so left out of the program where there is no bias
    else:
        dz, db = over_batch(functools.partial(run, 0), shared=len(keys), whole=(1,), on_shard=on_shard)(dy, seen, *keys)
    product = functools.partial(jnp.matmul, precision=precision, preferred_element_type=jnp.float32)
    dx, dw = product(dz, w.T).astype(x.dtype), product(x.T, dz).astype(w.dtype)
    return dx, dw, None if b is None else db.astype(b.dtype), None
