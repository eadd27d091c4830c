"""softmax_cross_entropy around its hand-written kernels: derivative, batches and meshes.

Kept for the backward pass: logits, labels, and the two numbers of each row that triton.py states.
"""

from __future__ import annotations

import functools

import jax
import numpy as np

from kernels.runtime.batching import over_batch
from kernels.softmax_cross_entropy import triton


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def softmax_cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float, interpret: bool) -> jax.Array:
    """logits [rows, classes], labels int32 [rows] -> [rows] float32."""
    return _forward(logits, labels, label_smoothing, interpret)[0]


def _forward(logits, labels, label_smoothing, interpret):
    run = functools.partial(triton.forward, label_smoothing=label_smoothing, interpret=interpret)
    loss, normalizers = over_batch(run)(logits, labels)
    return loss, (logits, labels, normalizers)


def _backward(label_smoothing, interpret, residuals, dloss):
    run = functools.partial(triton.backward, label_smoothing=label_smoothing, interpret=interpret)
    no_gradient = np.zeros(residuals[1].shape, jax.dtypes.float0)  # what JAX asks for where the argument is an integer
    return over_batch(run)(*residuals, dloss)[0], no_gradient


softmax_cross_entropy.defvjp(_forward, _backward)
