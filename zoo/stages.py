"""The stages of a model as the layers that hold its parameters, for freezing and for learning rates per stage."""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx

CLASSIFIER = "classifier"


def stages(model: nnx.Module) -> dict[str, tuple[str, ...]]:
    """Paths of the modules of each stage that has parameters, from the input to the output.

    The names are those of `zoo.features` if a stage has layers of its own, else those of the model's attributes; the last is
    "classifier", with every layer that has one output per class.

    Example:
      {"stem": ("conv1", "bn1"), "layer1": ("layer1",), ..., "classifier": ("fc",)} of a ResNet.
    """
    found: dict[str, tuple[str, ...]] = {}
    layers = getattr(model, "stage_layers", lambda name: (name,))
    for name in getattr(model, "stages", ()):
        found[name] = layers(name)
    taken = {path.partition(".")[0] for paths in found.values() for path in paths}
    ends = {path.partition(".")[0] for path in getattr(model, "classifier_layers", ())}
    last = tuple(name for name in vars(model) if name in ends and _has_params(getattr(model, name)))
    for name, value in vars(model).items():
        if name not in taken and name not in ends and _has_params(value):
            found[name] = (name,)
    return found | ({CLASSIFIER: last} if last else {})


def _has_params(value: Any) -> bool:
    if isinstance(value, nnx.Param):
        return True
    return isinstance(value, nnx.Module) and bool(jax.tree.leaves(nnx.state(value, nnx.Param)))
