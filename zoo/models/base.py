"""What the image classifiers share: stages one after the other, a head that can be taken off or exchanged, checks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from zoo.arguments import as_rngs, whole
from zoo.layers.dropout import drop
from zoo.layers.linear import Linear
from zoo.weights.names import layer_at, torch_tensors, zoo_tensors


class FeatureInfo(NamedTuple):
    """One feature map: the stage it is of, its channels, and how many pixels of the image one of its own stands for."""

    name: str
    channels: int
    reduction: int


class ImageModel(nnx.Module):
    """A classifier of images [batch, height, width, in_channels]: named stages, then a head.

    `forward_head(forward_features(x))` is the call, as in timm; a subclass defines `stage_layers`, `run` and `head_features`,
    and ends its constructor with `finish`.

    Attributes:
      input_layer: path of the convolution that reads the image; weights for another number of channels are adapted to it.
      classifier_layers: paths of the layers with one output per class, the main one first.
      last_dropout: the dropout before that.
      min_size: smallest height and width.
      stages: names of the stages that give a map, in order; each can be rematerialized.
      num_features: channels of what the classifier reads.
      out_indices: of a model that gives feature maps instead of logits, which; None of a classifier.
    """

    input_layer: ClassVar[str]
    classifier_layers: ClassVar[tuple[str, ...]] = ("fc",)
    last_dropout: ClassVar[str] = "dropout"
    min_size: ClassVar[int] = 1

    def __init__(self, stages: tuple[str, ...], remat: bool | Collection[str]):
        """`remat`: names of the stages whose inner activations the backward pass recomputes; True for all."""
        chosen = stages if remat is True else tuple(remat or ())
        unknown = sorted(set(chosen) - set(stages))
        if isinstance(remat, str) or unknown:
            raise ValueError(f"remat: {remat!r} given, a collection of stage names is needed; they are {', '.join(stages)}")
        self.stages, self.remat = stages, frozenset(chosen)
        self.out_indices: tuple[int, ...] | None = None
        self._absent: tuple[str, ...] = ()  # names that weights may have and this model, a part of the whole, does not need

    def finish(self, num_classes: int) -> None:
        """The end of construction: without classes the classifier, which was made for one, is taken off."""
        classifier = layer_at(self, self.classifier_layers[0])
        self.num_features = classifier.in_features
        self._dense = (classifier.dtype, classifier.kernel.dtype, classifier.implementation)
        if num_classes == 0:
            self.reset_classifier(0)

    def stage_layers(self, name: str) -> tuple[str, ...]:
        """Paths of the modules that a stage consists of."""
        return (name,)

    def run(self, name: str, modules: tuple[Any, ...], x: jax.Array) -> jax.Array:
        """A stage, given its modules; it may read no other module."""
        raise NotImplementedError

    def head_features(self, x: jax.Array) -> dict[str, jax.Array]:
        """What stands between the last map and the classifier, by name; the last is what that reads."""
        raise NotImplementedError

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

    def prepare(self, x: jax.Array) -> jax.Array:
        """What happens to the image before the first stage."""
        return x

    def feature_maps(self, x: jax.Array) -> dict[str, jax.Array]:
        """The map [batch, height, width, channels] after each stage, by name."""
        self.check_input(x)
        x, maps = self.prepare(x), {}
        for name in self.stages:
            x = maps[name] = self._run_stage(name, x)
        return maps

    def _run_stage(self, name: str, x: jax.Array) -> jax.Array:
        def function(modules: tuple[Any, ...], x: jax.Array) -> jax.Array:
            return self.run(name, modules, x)

        modules = tuple(layer_at(self, path) for path in self.stage_layers(name))
        return (nnx.remat(function) if name in self.remat else function)(modules, x)

    def features(self, x: jax.Array) -> dict[str, jax.Array]:
        """The map after each stage, and what the head makes of the last one, by name."""
        maps = self.feature_maps(x)
        return maps if self.out_indices is not None else maps | self.head_features(maps[self.stages[-1]])

    def forward_features(self, x: jax.Array) -> jax.Array:
        """Images to the last stage's map [batch, height, width, channels]."""
        return self.feature_maps(x)[self.stages[-1]]

    def forward_head(self, x: jax.Array, pre_logits: bool = False) -> jax.Array:
        """The last stage's map to logits [batch, num_classes]; with `pre_logits`, or headless, to what the classifier reads."""
        if self.out_indices is not None:
            raise ValueError("forward_head: this model was made with features_only=True and has no head")
        for value in self.head_features(x).values():
            x = value
        x = drop(getattr(self, self.last_dropout), x)
        classifier = layer_at(self, self.classifier_layers[0])
        return x if pre_logits or classifier is None else classifier(x)

    def __call__(self, x: jax.Array) -> Any:
        if self.out_indices is not None:
            maps = self.feature_maps(x)
            return [maps[self.stages[index]] for index in self.out_indices]
        return self.forward_head(self.forward_features(x))

    def reset_classifier(self, num_classes: int, *, rngs: nnx.Rngs | int | jax.Array = 0) -> None:
        """Replace every layer that has one output per class by a new one with `num_classes`, drawn uniformly as torch does.

        With 0 the classifier is taken off, and the model gives what it read.
        """
        num_classes, rngs = whole("num_classes", num_classes, 0), as_rngs(rngs)
        if self.out_indices is not None:
            raise ValueError("num_classes: this model was made with features_only=True and has no head")
        before = self._names()
        for path in self.classifier_layers:
            holder, _, name = path.rpartition(".")
            parent = layer_at(self, holder) if holder else self
            if parent is None:
                continue
            old, (dtype, param_dtype, implementation) = getattr(parent, name), self._dense
            inputs = self.num_features if old is None else old.in_features
            policy: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "implementation": implementation}
            setattr(parent, name, Linear(inputs, num_classes, rngs=rngs, **policy) if num_classes else None)
        self._leave_out(before)

    def keep_feature_maps(self, out_indices: Sequence[int] | None) -> None:
        """Give the maps of these stages instead of logits, and drop what comes after the last of them.

        Args:
          out_indices: numbers of stages, negative ones from the end; None for all.
        """
        count = len(self.stages)
        given = range(count) if out_indices is None else out_indices
        indices = [whole("out_indices", index, -count) for index in given] if not isinstance(given, str) else []
        if not indices or max(indices) >= count:
            listed = ", ".join(f"{number} {name}" for number, name in enumerate(self.stages))
            raise ValueError(f"out_indices: {out_indices!r} given, a list of stage numbers is needed: {listed}")
        before = self._names()
        self.out_indices = tuple(index % count for index in indices)
        self.stages = self.stages[: max(self.out_indices) + 1]
        self.drop_others()
        self._leave_out(before)

    def drop_others(self) -> None:
        """Drop the modules that no stage consists of."""
        kept = {path.partition(".")[0] for name in self.stages for path in self.stage_layers(name)}
        for name, value in list(vars(self).items()):
            if isinstance(value, nnx.Module) and name not in kept:
                setattr(self, name, None)

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        """Of each map that the model gives; of every stage where it is a classifier."""
        side = max(224, self.min_size)
        image = jax.ShapeDtypeStruct((1, side, side, layer_at(self, self.input_layer).in_channels), jnp.float32)
        view = nnx.view(self, deterministic=True, use_running_average=True, raise_if_not_found=False)
        maps = nnx.eval_shape(lambda model, x: model.feature_maps(x), view, image)
        names = self.stages if self.out_indices is None else [self.stages[index] for index in self.out_indices]
        return tuple(FeatureInfo(name, maps[name].shape[-1], round(side / maps[name].shape[1])) for name in names)

    def torch_ignored(self) -> tuple[str, ...]:
        """Names, or their beginnings, that weights may have and this model does not need."""
        return self._absent

    def _names(self) -> set[str]:
        return {*torch_tensors(self), *zoo_tensors(self)}

    def _leave_out(self, before: set[str]) -> None:
        now = self._names()
        self._absent = tuple(sorted(({*self._absent} | before) - now))


def run_list(modules: nnx.List, x: jax.Array) -> jax.Array:
    """Each module on the output of the one before."""
    for module in modules:
        x = module(x)
    return x
