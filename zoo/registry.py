"""Model names: what can be built, by which function, and what is known of each without building it."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx

from zoo.options import options_json
from zoo.preprocessing import Preprocessing
from zoo.weights.published import preprocessing_of


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """Facts about one registered model.

    Attributes:
      name: registry name.
      family: the file under zoo/models/ that defines it.
      paper: author, year and title.
      params: trainable parameters of the default configuration, without heads that only training uses.
      macs: multiply-adds of the forward pass of one example of `input_shape`, convolutions and matrix products only.
      input_shape: one example, without the batch: (height, width, channels), (time, features) or (time,) for token ids.
      weights: names of published weights that `zoo.load_weights(model, "torchvision://NAME")` finds.
      num_classes: the default number of classes (for a language model, the size of the vocabulary).
    """

    name: str
    family: str
    paper: str
    params: int
    macs: int
    input_shape: tuple[int, ...]
    weights: tuple[str, ...] = ()
    num_classes: int = 1000

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How an image is made ready for the newest published weights; None where there are none."""
        return preprocessing_of(self.weights[0]) if self.weights else None

    def preprocessing_for(self, weights: str) -> Preprocessing:
        """The same for one of `weights`, such as "resnet50.IMAGENET1K_V1".

        Raises:
          ValueError: no such weights are published for this model.
        """
        if weights not in self.weights:
            raise ValueError(f"weights: {weights!r} given, {self.name} has {', '.join(self.weights) or 'no published weights'}")
        return preprocessing_of(weights)


_models: dict[str, tuple[ModelInfo, Callable[..., nnx.Module]]] = {}


def register(name: str, **info: Any) -> Callable[[Callable[..., nnx.Module]], Callable[..., nnx.Module]]:
    """Decorate a builder `f(*, num_classes, in_channels, dtype, param_dtype, implementation, rngs, ...)` with its name.

    The keywords are those of `ModelInfo`; the family is the name of the file that the builder stands in.
    """

    def add(builder: Callable[..., nnx.Module]) -> Callable[..., nnx.Module]:
        if name in _models:
            raise ValueError(f"name: {name!r} is registered twice")
        family = builder.__module__.rpartition(".")[2]
        _models[name] = (ModelInfo(name=name, family=family, **info), builder)
        return builder

    return add


def _entry(name: str) -> tuple[ModelInfo, Callable[..., nnx.Module]]:
    if name not in _models:
        near = difflib.get_close_matches(str(name), _models, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else f"known models: {', '.join(list_models())}"
        raise ValueError(f"name: no model {name!r}; {hint}")
    return _models[name]


def list_models(pattern: str = "*") -> list[str]:
    """Sorted names of the models that match a shell-style pattern, such as ``"resnet*"``."""
    return sorted(fnmatch.filter(_models, pattern))


def model_info(name: str) -> ModelInfo:
    """Facts about a model. Raises ValueError, with the nearest names, for an unknown one."""
    return _entry(name)[0]


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    dtype: jnp.dtype | type | None = None,
    param_dtype: jnp.dtype | type = jnp.float32,
    implementation: str | None = None,
    weights: Any = None,
    rngs: nnx.Rngs | int = 0,
    **options: Any,
) -> nnx.Module:
    """Build a model in training mode, with freshly drawn parameters or with `weights`.

    Args:
      name: a name from `list_models`.
      num_classes: outputs of the classifier; None for the model's own default.
      in_channels: channels (or features per step) of the input; None for the model's own default.
      dtype: dtype of the computation; None for that of the parameters.
      param_dtype: dtype of the parameters; running statistics are kept in at least float32.
      implementation: passed to every operator in kernels/; None takes the best that runs here.
      weights: anything `load_weights` takes, loaded into the new model.
      rngs: random streams, or a seed.
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
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{key}: {value!r} given, a whole number of at least 1 is needed")
            options[key] = value
    rngs = nnx.Rngs(rngs) if isinstance(rngs, int) else rngs
    try:
        model: Any = builder(dtype=dtype, param_dtype=param_dtype, implementation=implementation, rngs=rngs, **options)
    except TypeError as error:
        if "unexpected keyword" in str(error):
            raise TypeError(f"{info.name}: {error}") from None
        raise
    defaults = {"num_classes": info.num_classes, "in_channels": info.input_shape[-1]}
    model.zoo_name = name
    model.zoo_options = options_json(builder, defaults, options | {"dtype": dtype, "param_dtype": param_dtype})
    if weights is not None:
        from zoo.weights import load_weights  # type: ignore[attr-defined]

        load_weights(model, weights)
    return model
