"""Cross-entropy of the softmax in plain JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels.runtime.activations import accumulation_dtype


def softmax_cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float) -> jax.Array:
    logits = logits.astype(accumulation_dtype(logits))
    # Everything less the largest logit, before sums are taken: of large logits their differences are what counts.
    largest = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    logits = logits - jnp.where(jnp.isfinite(largest), largest, 0)
    normalizer = jnp.log(jnp.sum(jnp.exp(logits), axis=-1))
    if jnp.issubdtype(labels.dtype, jnp.integer):
        classes = logits.shape[-1]
        known = (labels >= 0) & (labels < classes)
        # A comparison, not a gather: its gradient fuses into the softmax's, where a gather's is a scatter of its own.
        chosen = labels[..., None] == jnp.arange(classes, dtype=labels.dtype)
        expected = jnp.where(known, jnp.sum(jnp.where(chosen, logits, 0), axis=-1), jnp.nan)
        total = jnp.ones_like(normalizer)
    else:
        labels = labels.astype(logits.dtype)
        expected = jnp.sum(labels * logits, axis=-1)
        total = jnp.sum(labels, axis=-1)
    if label_smoothing:
        expected = (1 - label_smoothing) * expected + label_smoothing * jnp.mean(logits, axis=-1)
        total = (1 - label_smoothing) * total + label_smoothing
    return normalizer * total - expected
