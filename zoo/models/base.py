"""What the image classifiers share: checks of the input, a new classifier, rematerialization of stages."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from zoo.arguments import as_rngs, whole
from zoo.layers.linear import Linear
from zoo.weights.names import layer_at


class ImageModel(nnx.Module):
    """A classifier of images [batch, height, width, in_channels] with named stages.

    A subclass says where its ends are, and defines `features`, whose last stage the classifier reads.

    Attributes:
      input_layer: path of the convolution that reads the image; weights for another number of channels are adapted to it.
      classifier_layers: paths of the layers with one output per class.
      min_size: smallest height and width.
      remat_stages: names of the stages that can be rematerialized, in order.
    """

    input_layer: ClassVar[str]
    classifier_layers: ClassVar[tuple[str, ...]] = ("fc",)
    min_size: ClassVar[int] = 1

    def __init__(self, remat_stages: tuple[str, ...], remat: bool | Collection[str]):
        """`remat`: names of the stages whose inner activations the backward pass recomputes; True for all."""
        chosen = remat_stages if remat is True else tuple(remat or ())
        unknown = sorted(set(chosen) - set(remat_stages))
        if isinstance(remat, str) or unknown:
            raise ValueError(
                f"remat: {remat!r} given, a collection of stage names is needed; they are {', '.join(remat_stages)}"
            )
        self.remat_stages, self.remat = remat_stages, frozenset(chosen)

    def check_input(self, x: jax.Array) -> None:
        """Raise ValueError for a shape and TypeError for a dtype that the model cannot read."""
        channels = layer_at(self, self.input_layer).in_channels
        if x.ndim != 4 or x.shape[-1] != channels or min(x.shape[1:3]) < self.min_size:
            raise ValueError(
                f"x: shape {x.shape} given, [batch, height, width, {channels}] is needed, "
                f"height and width at least {self.min_size}"
            )
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"x: dtype {x.dtype} given, a floating-point type is needed: scale and normalize the images first")

    def run_stage(self, name: str, function: Callable[..., jax.Array], module: Any, *inputs: jax.Array) -> jax.Array:
        """function(module, *inputs), rematerialized if the stage was named so. `function` reads no module but that one."""
        return (nnx.remat(function) if name in self.remat else function)(module, *inputs)

    def reset_classifier(self, num_classes: int, *, rngs: nnx.Rngs | int | jax.Array) -> None:
        """Replace every layer that has one output per class by a new one with `num_classes`, drawn uniformly as torch does."""
        num_classes, rngs = whole("num_classes", num_classes), as_rngs(rngs)
        for path in self.classifier_layers:
            holder, _, name = path.rpartition(".")
            parent = layer_at(self, holder) if holder else self
            if parent is None:
                continue
            old = getattr(parent, name)
            new = Linear(
                old.in_features,
                num_classes,
                dtype=old.dtype,
                param_dtype=old.kernel.dtype,
                implementation=old.implementation,
                rngs=rngs,
            )
            setattr(parent, name, new)


def run_list(modules: nnx.List, x: jax.Array) -> jax.Array:
    """Each module on the output of the one before."""
    for module in modules:
        x = module(x)
    return x
