"""Cross-entropy of the softmax in plain JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels.runtime.activations import accumulation_dtype


def softmax_cross_entropy(
    logits: jax.Array, labels: jax.Array, label_smoothing: float, weight: jax.Array | None = None
) -> jax.Array:
    """The loss of each example; class numbers are int32. `weight` multiplies each class's part of the target."""
    logits = logits.astype(accumulation_dtype(logits))
    # Everything less the largest logit, before sums are taken: of large logits their differences are what counts.
    largest = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    logits = logits - jnp.where(largest == -jnp.inf, 0, largest)
    normalizer = jnp.log(jnp.sum(jnp.exp(logits), axis=-1))
    if weight is not None:
        return _weighted(logits, normalizer, labels, label_smoothing, weight.astype(logits.dtype))
    if jnp.issubdtype(labels.dtype, jnp.integer):
        # A comparison, not a gather: its gradient fuses into the softmax's, where a gather's is a scatter of its own.
        chosen = labels[..., None] == jnp.arange(logits.shape[-1], dtype=labels.dtype)
        expected = jnp.where(_known(logits, labels), jnp.sum(jnp.where(chosen, logits, 0), axis=-1), jnp.nan)
        total = jnp.ones_like(normalizer)
    else:
        labels = labels.astype(logits.dtype)
        expected = jnp.sum(labels * logits, axis=-1)
        total = jnp.sum(labels, axis=-1)
    if label_smoothing:
        expected = (1 - label_smoothing) * expected + label_smoothing * jnp.mean(logits, axis=-1)
        total = (1 - label_smoothing) * total + label_smoothing
    return normalizer * total - expected


def _known(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return (labels >= 0) & (labels < logits.shape[-1])


def _weighted(logits, normalizer, labels, label_smoothing, weight):
    if jnp.issubdtype(labels.dtype, jnp.integer):
        chosen = labels[..., None] == jnp.arange(logits.shape[-1], dtype=labels.dtype)
        target = jnp.where(_known(logits, labels)[..., None], chosen.astype(logits.dtype), jnp.nan)
    else:
        target = labels.astype(logits.dtype)
    target = ((1 - label_smoothing) * target + label_smoothing / logits.shape[-1]) * weight
    return normalizer * jnp.sum(target, axis=-1) - jnp.sum(target * logits, axis=-1)
