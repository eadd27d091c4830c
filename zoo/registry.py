"""Model names: which function builds each, and what is known of it without building it."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import functools
import importlib
import inspect
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import jax.numpy as jnp
from flax import nnx

from zoo.arguments import as_rngs, whole
from zoo.model_types import FAMILIES, GanName, LanguageModelName, ResNetName, SequenceClassifierName, VGGName
from zoo.options import options_json
from zoo.preprocessing import Preprocessing
from zoo.weights.published import preprocessing_of

if TYPE_CHECKING:
    from zoo.models.alexnet import AlexNet, AlexNetOriginal
    from zoo.models.gan import Gan
    from zoo.models.googlenet import GoogLeNet, GoogLeNetOriginal
    from zoo.models.lenet import LeNet5, LeNet5Original
    from zoo.models.recurrent import LanguageModel, SequenceClassifier, Tagger
    from zoo.models.resnet import ResNet
    from zoo.models.vgg import VGG


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """Facts about one registered model.

    Attributes:
      name: registry name.
      family: the file under zoo/models/ that defines it.
      input_shape: one example, without the batch: (height, width, channels), (time, features) or (time,) for token ids.
      paper: author, year and title.
      params: trainable parameters of the default configuration, without heads that only training uses; 0 where not given.
      macs: multiply-adds of the forward pass of one example of `input_shape`, convolutions and matrix products only; 0 where
        not given.
      weights: names of published weights that `zoo.load_weights(model, "torchvision://NAME")` finds.
      num_classes: the default number of classes (for a language model, the size of the vocabulary).
    """

    name: str
    family: str
    input_shape: tuple[int, ...]
    paper: str = ""
    params: int = 0
    macs: int = 0
    weights: tuple[str, ...] = ()
    num_classes: int = 1000

    @property
    def preprocessing(self) -> Preprocessing | None:
        """The preprocessing of images for the newest published weights; None if there are none."""
        return preprocessing_of(self.weights[0]) if self.weights else None

    def preprocessing_for(self, weights: str) -> Preprocessing:
        """The same for one of `weights`, such as "resnet50.IMAGENET1K_V1".

        Raises:
          ValueError: no such weights are published for this model.
        """
        if weights not in self.weights:
            raise ValueError(f"weights: {weights!r} given, {self.name} has {', '.join(self.weights) or 'no published weights'}")
        return preprocessing_of(weights)


_models: dict[str, tuple[ModelInfo, Callable[..., nnx.Module]]] = {}  # those whose family was imported
_FAMILY_OF = {name: family for family, names in FAMILIES.items() for name in names}


def register(name: str, **info: Any) -> Callable[[Callable[..., nnx.Module]], Callable[..., nnx.Module]]:
    """Decorate a builder with the name that `create_model` knows it by.

    The builder is `f(*, dtype, param_dtype, implementation, rngs, ...)`, with `num_classes` and `in_channels` where the model
    has them; it returns an nnx.Module.

    Args:
      name: not one that is taken.
      **info: fields of `ModelInfo`; `input_shape` is needed. The family is the name of the file that the builder stands in.

    Raises:
      ValueError: the name is taken, or `input_shape` is missing.
    """
    if "input_shape" not in info:
        raise ValueError(f"input_shape: missing; zoo.register({name!r}, input_shape=(224, 224, 3)), of one example")

    def add(builder: Callable[..., nnx.Module]) -> Callable[..., nnx.Module]:
        family = builder.__module__.rpartition(".")[2]
        own = name not in _FAMILY_OF or builder.__module__ == _module(_FAMILY_OF[name])
        if name in _models or not own:
            raise ValueError(f"name: {name!r} is registered twice")
        _models[name] = (ModelInfo(name=name, family=family, **info), builder)
        return builder

    return add


def registered_name(builder: Any) -> str | None:
    """The name under which a builder is registered; None where it is not."""
    return next((name for name, (_, known) in _models.items() if known is builder), None)


def _module(family: str) -> str:
    return f"zoo.models.{family}"


def _entry(name: str) -> tuple[ModelInfo, Callable[..., nnx.Module]]:
    if name not in _models and name in _FAMILY_OF:
        importlib.import_module(_module(_FAMILY_OF[name]))  # which registers it
    if name not in _models:
        near = difflib.get_close_matches(str(name), list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else f"known models: {', '.join(list_models())}"
        raise ValueError(f"name: no model {name!r}; {hint}")
    return _models[name]


def list_models(pattern: str = "*") -> list[str]:
    """Sorted names of the models that match a shell-style pattern, such as ``"resnet*"``."""
    return sorted(fnmatch.filter({*_models, *_FAMILY_OF}, pattern))


def model_info(name: str) -> ModelInfo:
    """Facts about a model. Raises ValueError, with the nearest names, for an unknown one."""
    return _entry(name)[0]


# What other libraries call it -> what it is called here.
ELSEWHERE = {
    "in_chans": "in_channels",
    "pretrained": "weights, such as weights='torchvision://resnet50'",
    "drop_path_rate": "stochastic_depth",
    "drop_rate": "dropout",
    "img_size": "no such option: a model takes images of any size that its stages leave something of",
    "checkpoint_path": "weights",
    "progress": "no such option",
}


def _hint(info: ModelInfo, keyword: str) -> str:
    """What an unknown keyword may have meant."""
    if keyword in ELSEWHERE:
        return f"; here it is {ELSEWHERE[keyword]}"
    takers = (_entry(info.name)[1], type(nnx.eval_shape(lambda: create_model(info.name))).__init__)
    known = {name for taker in takers for name, p in inspect.signature(taker).parameters.items() if p.kind is p.KEYWORD_ONLY}
    near = difflib.get_close_matches(keyword, known - {"rngs"}, n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""


@overload
def create_model(name: Literal["lenet5"], **options: Any) -> LeNet5: ...
@overload
def create_model(name: Literal["lenet5_original"], **options: Any) -> LeNet5Original: ...
@overload
def create_model(name: Literal["alexnet"], **options: Any) -> AlexNet: ...
@overload
def create_model(name: Literal["alexnet_original"], **options: Any) -> AlexNetOriginal: ...
@overload
def create_model(name: VGGName, **options: Any) -> VGG: ...
@overload
def create_model(name: ResNetName, **options: Any) -> ResNet: ...
@overload
def create_model(name: Literal["googlenet"], **options: Any) -> GoogLeNet: ...
@overload
def create_model(name: Literal["googlenet_original"], **options: Any) -> GoogLeNetOriginal: ...
@overload
def create_model(name: LanguageModelName, **options: Any) -> LanguageModel: ...
@overload
def create_model(name: SequenceClassifierName, **options: Any) -> SequenceClassifier: ...
@overload
def create_model(name: Literal["bilstm_tagger"], **options: Any) -> Tagger: ...
@overload
def create_model(name: GanName, **options: Any) -> Gan: ...
@overload
def create_model(name: str, **options: Any) -> nnx.Module: ...
def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    dtype: jnp.dtype | type | None = None,
    param_dtype: jnp.dtype | type = jnp.float32,
    implementation: str | None = None,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
    weights: Any = None,
    rngs: Any = 0,
    **options: Any,
) -> nnx.Module:
    """Build a model in training mode, with freshly drawn parameters or with `weights`.

    Args:
      name: a name from `list_models`.
      num_classes: outputs of the classifier; None for the model's own default. With 0 an image model, a sequence classifier or
        a tagger has no classifier, and returns the classifier's input [..., num_features].
      in_channels: channels (or features per step) of the input; None for the model's own default.
      dtype: dtype of the computation; None for that of the parameters.
      param_dtype: dtype of the parameters; running statistics are kept in at least float32.
      implementation: passed to every operator in kernels/; None takes the best one available.
      features_only: an image model without its head, which returns a list of feature maps [batch, height, width, channels];
        `model.feature_info` has their stages, channels and reductions.
      out_indices: numbers of the stages to return, negative ones from the end; later stages are dropped. None for all.
      weights: anything that `load_weights` accepts, loaded into the new model.
      rngs: nnx.Rngs, a seed or a jax.random.key.
      **options: the model's own keywords (dropout, aux_logits, ...).

    Returns:
      A module to call on [batch, *input_shape].

    Raises:
      ValueError: an unknown name, or a keyword outside its range.
      TypeError: a keyword that the model does not take.
    """
    info, builder = _entry(name)
    for key, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if value is not None:
            options[key] = whole(key, value, 0 if key == "num_classes" else 1)
    if out_indices is not None and not features_only:
        raise ValueError(f"out_indices: {out_indices!r} given without features_only=True")
    build = functools.partial(builder, dtype=dtype, param_dtype=param_dtype, implementation=implementation, **options)
    waiting = None
    try:
        if weights is None:
            model: Any = build(rngs=as_rngs(rngs))
        else:
            from zoo.layers import initializers

            # Large kernels are not drawn, unless the model computes something with them when it is made.
            streams = as_rngs(rngs)
            spare = nnx.clone(streams)
            with initializers.postponed() as waiting:
                model = build(rngs=streams)
            if not waiting.are_in(model):
                model = build(rngs=spare)
    except TypeError as error:
        if unknown := re.search(r"unexpected keyword argument '(\w+)'", str(error)):
            raise TypeError(f"{info.name}: unexpected keyword argument {unknown[1]!r}{_hint(info, unknown[1])}") from None
        raise
    if features_only:
        if not hasattr(model, "keep_feature_maps"):
            raise ValueError(f"features_only: {name} has no such form; zoo.features(model, x) gives what its stages put out")
        model.keep_feature_maps(out_indices)
        options |= {"features_only": True, "out_indices": model.out_indices}
    defaults = {"num_classes": info.num_classes, "in_channels": info.input_shape[-1]}
    model.zoo_name = name
    model.zoo_options = options_json(builder, defaults, options | {"dtype": dtype, "param_dtype": param_dtype})
    if waiting is not None:
        from zoo.weights import load_weights  # type: ignore[attr-defined]

        load_weights(model, weights)
        waiting.draw(model)  # what the weights do not have: a classifier for other classes
    return model
