"""The loss of a classifier, with or without auxiliary heads, shared by training, comparison and benchmarks."""

from __future__ import annotations

from typing import Any

import jax

import kernels

AUXILIARY = 0.3  # weight of each of GoogLeNet's two auxiliary heads (Szegedy et al. 2014, section 5)


def cross_entropy(outputs: Any, labels: jax.Array, label_smoothing: float = 0.0) -> tuple[jax.Array, jax.Array]:
    """Mean softmax cross-entropy, and the logits.

    Args:
      outputs: logits, or a tuple of logits and those of auxiliary heads (or None), which are added with the weight AUXILIARY.
      labels: class numbers, or shares of the classes.
    """
    logits, *further = outputs if isinstance(outputs, tuple) else (outputs,)
    mean = lambda scores: kernels.softmax_cross_entropy(scores, labels, label_smoothing=label_smoothing).mean()
    return mean(logits) + AUXILIARY * sum(mean(scores) for scores in further if scores is not None), logits
