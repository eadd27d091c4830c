"""Cross-entropy of the softmax of logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels.runtime import checks, dispatch
from kernels.runtime.activations import accumulation_dtype
from kernels.softmax_cross_entropy import xla

IMPLEMENTATIONS = ("xla", *dispatch.TRITON)
REDUCTIONS = ("none", "sum", "mean")
CLASSES = 2**25  # rows are cut into blocks along an axis of the grid that takes 65535 of them


@dispatch.operator()
def softmax_cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    weight: jax.Array | None = None,
    reduction: str = "none",
    implementation: str | None = None,
) -> jax.Array:
    """-sum(target * log_softmax(logits)) for each example, in float32 at least; equal to torch.nn.functional.cross_entropy.

    Label smoothing is that of Szegedy et al. 2016, Rethinking the inception architecture, section 7. Floor: the logits once
    forward; the logits and their gradient backward.

    Args:
      logits: [..., classes], floating point. A row with a NaN or a positive infinity gives NaN.
      labels: class numbers, an integer array [...]; or class probabilities, floating point, [..., classes]. A class number
        outside [0, classes) gives NaN.
      label_smoothing: in [0, 1]; the target is (1 - label_smoothing) * labels + label_smoothing / classes, as in torch.
      ignore_index: a class number, in range or not: examples that have it lose 0, have no gradient, and do not count in "mean".
        Only with class numbers.
      weight: [classes], floating point: what each class's part of the target is multiplied by.
      reduction: "none": the loss of each example; "sum": all added up; "mean": their sum over the sum of the weights of the
        labels that are not ignored (of class probabilities, over the number of examples). As in torch, where it is the default.
      implementation: see `kernels.runtime.dispatch`.

    Returns:
      The loss of each example, [...], or a scalar; float32 (float64 where the logits are).

    Raises:
      ValueError: the shapes do not fit, label_smoothing is out of range, the reduction is unknown, or ignore_index is given
        with class probabilities.
      TypeError: logits or weight are not floating point, or the labels neither integers nor floating point.
      ImplementationError: the implementation asked for does not exist or cannot run, for reasons that it lists.
    """
    checks.floating("logits", logits)
    if logits.ndim < 1 or logits.shape[-1] < 1:
        raise ValueError(f"logits: shape {logits.shape} is not [..., classes]")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing: {label_smoothing} is not in [0, 1]")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction: {reduction!r} is none of {', '.join(REDUCTIONS)}")
    numbered = jnp.issubdtype(labels.dtype, jnp.integer)
    if numbered:
        checks.shape("labels", labels, logits.shape[:-1], f"one class number for each row of logits, {logits.shape}")
    else:
        checks.floating("labels", labels)
        checks.shape("labels", labels, logits.shape, "class probabilities in the shape of logits (or give class numbers)")
        if ignore_index is not None:
            raise ValueError(f"ignore_index: {ignore_index} is given, and the labels are class probabilities")
    if weight is not None:
        checks.floating("weight", weight)
        checks.shape("weight", weight, logits.shape[-1:], f"one value per class of logits, {logits.shape}")
    reason = checks.hand_written(logits)
    if not numbered:
        reason = "it takes class numbers, and was given class probabilities"
    elif weight is not None and label_smoothing:
        reason = "it takes no weight beside label_smoothing: every class then has a weight of its own in the sum"
    if checks.exceeds(logits.shape[-1], CLASSES):
        reason = f"it takes up to {CLASSES} classes, and was given {logits.shape[-1]}"
    has = {"xla": None, **dict.fromkeys(dispatch.TRITON, reason)}
    chosen = dispatch.choose("softmax_cross_entropy", implementation, has, checks.shape_class(logits))

    counted = of_label = None
    if numbered:
        counted = None if ignore_index is None else labels != _as(labels, ignore_index)
        labels = _class_numbers(labels, logits.shape[-1])
        labels = labels if counted is None else jnp.where(counted, labels, 0)
        # The weight of an unknown class does not matter: its loss is NaN.
        of_label = None if weight is None else jnp.take(weight, labels, mode="clip").astype(accumulation_dtype(logits))
    if chosen != "xla" and logits.size:
        from kernels.softmax_cross_entropy import vjp

        rows = logits.reshape(-1, logits.shape[-1])
        loss = vjp.softmax_cross_entropy(rows, labels.reshape(-1), label_smoothing, chosen)
        loss = loss.reshape(labels.shape)
    else:
        loss = xla.softmax_cross_entropy(logits, labels, label_smoothing, weight if label_smoothing or not numbered else None)
    if of_label is not None and not label_smoothing:
        loss = loss * of_label
    if counted is not None:
        loss = jnp.where(counted, loss, 0)
    if reduction == "none":
        return loss
    if reduction == "sum":
        return jnp.sum(loss)
    if counted is None and of_label is None:
        return jnp.mean(loss)
    each = jnp.ones(loss.shape, loss.dtype) if of_label is None else of_label
    return jnp.sum(loss) / jnp.sum(each if counted is None else jnp.where(counted, each, 0))


def _as(labels: jax.Array, number: int) -> jax.Array | int:
    """A class number in the labels' type; one that it does not hold is none of them."""
    kind = jnp.iinfo(labels.dtype)
    return jnp.asarray(number, labels.dtype) if kind.min <= number <= kind.max else jnp.int32(-1)


def _class_numbers(labels: jax.Array, classes: int) -> jax.Array:
    """As int32; one outside [0, classes) stays outside. In the labels' own type the number of classes may not exist."""
    if labels.dtype.itemsize < 8:
        return labels.astype(jnp.int32)  # of uint32, what does not fit becomes negative
    wide = labels.astype(jnp.int64)
    return jnp.where((wide >= 0) & (wide < classes), wide, -1).astype(jnp.int32)
