"""Cross-entropy of the softmax of logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels.runtime import checks, dispatch
from kernels.softmax_cross_entropy import xla

IMPLEMENTATIONS = ("xla", "triton", "interpret")
CLASSES = 2**25  # rows are cut into blocks along an axis of the grid that takes 65535 of them


@dispatch.operator
def softmax_cross_entropy(
    logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0, implementation: str | None = None
) -> jax.Array:
    """-sum(target * log_softmax(logits)) for each example, in float32 at least.

    Label smoothing is that of Szegedy et al. 2016, Rethinking the inception architecture, section 7. Floor: the logits once
    forward; the logits and their gradient backward.

    Args:
      logits: [..., classes], floating point.
      labels: class numbers, an integer array [...]; or class probabilities, floating point, [..., classes]. A class number
        outside [0, classes) gives NaN.
      label_smoothing: in [0, 1]; the target is (1 - label_smoothing) * labels + label_smoothing / classes, as in torch.
      implementation: see `kernels.runtime.dispatch`.

    Returns:
      The loss of each example, [...], float32 (float64 where the logits are).

    Raises:
      ValueError: the shapes do not fit, or label_smoothing is out of range.
      TypeError: the logits are not floating point, or the labels neither integers nor floating point.
      ImplementationError: the implementation asked for does not exist or cannot run, for reasons that it lists.
    """
    checks.floating("logits", logits)
    if logits.ndim < 1 or logits.shape[-1] < 1:
        raise ValueError(f"logits: shape {logits.shape} is not [..., classes]")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing: {label_smoothing} is not in [0, 1]")
    if jnp.issubdtype(labels.dtype, jnp.integer):
        checks.shape("labels", labels, logits.shape[:-1], f"one class number for each row of logits, {logits.shape}")
    else:
        checks.floating("labels", labels)
        checks.shape("labels", labels, logits.shape, "class probabilities in the shape of logits (or give class numbers)")
    reason = checks.hand_written(logits)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        reason = "it takes class numbers, and was given class probabilities"
    if checks.exceeds(logits.shape[-1], CLASSES):
        reason = f"it takes up to {CLASSES} classes, and was given {logits.shape[-1]}"
    has = {"xla": None, "triton": reason, "interpret": reason}
    chosen = dispatch.choose("softmax_cross_entropy", implementation, has, checks.shape_class(logits))
    if chosen != "xla" and logits.size:
        from kernels.softmax_cross_entropy import vjp

        rows = logits.reshape(-1, logits.shape[-1])
        numbers = labels.reshape(-1).astype(jnp.int32)
        return vjp.softmax_cross_entropy(rows, numbers, label_smoothing, chosen == "interpret").reshape(labels.shape)
    return xla.softmax_cross_entropy(logits, labels, label_smoothing)
