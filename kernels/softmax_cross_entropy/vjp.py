"""softmax_cross_entropy around its hand-written kernels: derivative, vmap and meshes.

Residuals: logits, labels, and the two numbers per row that triton.py describes.
"""

from __future__ import annotations

import functools

import jax

from kernels.runtime.batching import over_batch
from kernels.runtime.derivatives import differentiable
from kernels.softmax_cross_entropy import triton, xla


def softmax_cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float, implementation: str) -> jax.Array:
    """logits [rows, classes], labels int32 [rows] -> [rows] float32."""
    static = {"label_smoothing": label_smoothing, "implementation": implementation}

    def forward(logits, labels):
        loss, normalizers = over_batch(functools.partial(triton.forward, **static))(logits, labels)
        return loss, (logits, labels, normalizers)

    def backward(residuals, dloss):
        return over_batch(functools.partial(triton.backward, **static))(*residuals, dloss)[0], None

    plain = functools.partial(xla.softmax_cross_entropy, label_smoothing=label_smoothing)
    return differentiable(plain, forward, backward)(logits, labels)
