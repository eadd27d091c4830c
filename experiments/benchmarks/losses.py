"""The loss that the convolutional benchmarks train on."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import kernels

HEADS = (1.0, 0.3, 0.3)  # of GoogLeNet's classifier and auxiliary heads


def weighted_loss(outputs: Any, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy of the logits, and with GoogLeNet's weights of its heads."""
    heads = outputs if isinstance(outputs, tuple) else (outputs,)
    losses = [
        weight * kernels.softmax_cross_entropy(logits, labels).mean() for weight, logits in zip(HEADS, heads, strict=False)
    ]
    return jnp.stack(losses).sum()
