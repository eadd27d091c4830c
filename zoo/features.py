"""Feature maps of any zoo model by stage name."""

from __future__ import annotations

import jax
from flax import nnx


def features(model: nnx.Module, x: jax.Array) -> dict[str, jax.Array]:
    """Outputs of each stage of `model` on `x`, from first to last, by stage name, in the model's current mode.

    Raises:
      TypeError: the model has no stages.
    """
    method = getattr(model, "features", None)
    if method is None or not callable(method):
        raise TypeError(f"model: {type(model).__name__} has no feature stages")
    return method(x)
