"""Saves a model with everything needed to use it, and loads it again."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from zoo.layers.norm import FoldedNorm
from zoo.model_card import FILE, write_card
from zoo.options import options_from_json
from zoo.preprocessing import Preprocessing
from zoo.registry import create_model, model_info
from zoo.weights.download import fetch_hub
from zoo.weights.info import KEY, WeightsInfo, weights_info
from zoo.weights.load import load_weights, save_weights
from zoo.weights.names import torch_tensors
from zoo.weights.pth import WeightsFileError
from zoo.weights.runs import CHECKPOINTS, MODEL, checkpoint_in
from zoo.weights.sources import read_info

logger = logging.getLogger(__name__)


def save_model(
    model: nnx.Module,
    folder: str | os.PathLike,
    *,
    classes: Sequence[str] | None = None,
    vocabulary: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    data: str | None = None,
    figures: Mapping[str, float] | None = None,
) -> pathlib.Path:
    """Write model.safetensors, whose metadata say how the model is built and used, and a model card README.md.

    `load_model` restores the model. A README.md that somebody wrote or edited is kept.

    Args:
      model: made by `zoo.create_model`; `reset_classifier` may have changed its number of classes since.
      folder: created if it does not exist.
      classes, vocabulary, preprocessing, data, figures: see `WeightsInfo`. None keeps what is known from the loaded
        weights; an empty value removes it.

    Returns:
      The path of model.safetensors.

    Raises:
      ValueError: the model cannot be rebuilt from a file, or the number of names differs from its outputs or tokens.
    """
    built = _buildable(model)
    name: str = model.zoo_name  # type: ignore[attr-defined]
    known = weights_info(model)
    outputs = _outputs(built, name)
    tokens = getattr(getattr(model, "embedding", None), "num_embeddings", None)
    info = WeightsInfo(
        model=name,
        options=json.dumps(built),
        classes=_names("classes", classes, known.classes, outputs),
        vocabulary=_names("vocabulary", vocabulary, known.vocabulary, tokens),
        preprocessing=known.preprocessing if preprocessing is None else preprocessing,
        data=known.data if data is None else data,
        figures=known.figures if figures is None else tuple((n, float(value)) for n, value in figures.items()),
    )
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(model, folder / MODEL, info=info)
    if not write_card(folder, info):
        logger.warning("%s was not written by zoo.save_model, or was edited, and is kept", folder / FILE)
    return folder / MODEL


def load_model(
    source: str | os.PathLike,
    *,
    dtype: jnp.dtype | type | None = None,
    implementation: str | None = None,
    cache: str | os.PathLike | None = None,
    rngs: nnx.Rngs | int = 0,
    checkpoint: str | int | None = None,
) -> nnx.Module:
    """The model that `save_model` or a training run wrote, in evaluation mode; `zoo.weights_info` describes it.

    `zoo.predict` uses its class names and preprocessing. Nothing in a file is run as code.

    Args:
      source: the folder, its model.safetensors, the folder of a finished training run, or "hf://owner/name[@revision]".
      dtype: of the computation; None for the one that the model was built with.
      implementation: passed to every operator in kernels/; None takes the best one available.
      cache: folder for downloads; None for that of the hub's client.
      rngs: random streams, or a seed, for what training draws.
      checkpoint: of a training run: "newest", "best" or a step, whose values replace the final ones.

    Raises:
      ValueError: the file does not describe its model, or this version does not know that model; or there is no file.
      WeightsFileError: the file is damaged.
      DownloadError: the hub cannot be reached, or has no such file.
    """
    path, place = _find(source, cache)
    info = read_info(path, place)
    if not info.model:
        raise ValueError(
            f"source: {place} does not say what model it is of (no metadata {KEY}); "
            "zoo.load_weights(zoo.create_model(NAME), source) takes the values alone"
        )
    try:
        options: dict[str, Any] = options_from_json(info.options)
        options |= {} if dtype is None else {"dtype": dtype}
        # Nothing is allocated for sizes that the file's own tensors do not have.
        read: Any = nnx.eval_shape(lambda: create_model(info.model, **options))
        load_weights(read, path, adapt=False)
        outputs = _outputs(options, info.model)
        _names("classes", info.classes, (), outputs)
    except WeightsFileError:
        raise
    except (ValueError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).removeprefix("source: ").split())
        raise ValueError(f"source: {place}: {reason}") from None
    model: Any = create_model(info.model, implementation=implementation, rngs=rngs, **options)
    for name, tensor in torch_tensors(read).items():
        if isinstance(value := tensor.variable.get_value(), jax.Array):
            torch_tensors(model)[name].variable.set_value(value)
    if checkpoint is not None:
        saved = checkpoint_in(pathlib.Path(source), checkpoint)
        load_weights(model, saved, adapt=False)
        info, place = dataclasses.replace(info, figures=()), str(saved)  # the figures are of the last values
    model.zoo_weights = dataclasses.replace(info, source=place)
    model.eval()
    return model


def _find(source: str | os.PathLike, cache: str | os.PathLike | None) -> tuple[pathlib.Path, str]:
    """The local file of a source, and what to call it."""
    if isinstance(source, str) and source.startswith("hf://"):
        repo, at, revision = source.removeprefix("hf://").partition("@")
        file = f"{repo}/{MODEL}" if repo.count("/") == 1 else repo
        return fetch_hub(file + at + revision, cache), source
    if not isinstance(source, str | os.PathLike):
        raise ValueError(f"source: {type(source).__name__} given, a folder, a file or 'hf://owner/name' is needed")
    path = pathlib.Path(source)
    if path.is_dir():
        if not (path / MODEL).is_file():
            started = (path / CHECKPOINTS).is_dir()
            hint = ": a training run that has not finished; the command that started it continues it" if started else ""
            raise ValueError(f"source: {path} holds no {MODEL}{hint}")
        path /= MODEL
    if not path.is_file():
        raise ValueError(f"source: {path} does not exist; a folder, a .safetensors file or 'hf://owner/name' is needed")
    return path, str(path)


def _buildable(model: Any) -> dict[str, Any]:
    """The options, as JSON holds them, with which `create_model` gives a model of the same shapes.

    Raises:
      ValueError: there are none.
    """
    if not hasattr(model, "zoo_options"):
        raise ValueError(
            f"model: this {type(model).__name__} was not made by zoo.create_model, so a file could not say how to build it; "
            "zoo.save_weights writes the values alone"
        )
    if any(isinstance(node, FoldedNorm) for _, node in nnx.iter_graph(model)):
        raise ValueError(
            "model: zoo.fold_batch_norm made it, so a file could not say how to build it; save the model that was given to it, "
            "and fold what zoo.load_model returns"
        )
    options = json.loads(model.zoo_options)
    if getattr(model, "transform_input", None) is not None:  # which torchvision's weights may have turned on
        options["transform_input"] = model.transform_input
    shapes, built = _shapes(model), _built_shapes(model.zoo_name, options)
    differing = {name: shape for name, shape in shapes.items() if built.get(name) != shape}
    first = {shape[0] for shape in differing.values() if shape}
    if len(first) == 1:  # torch's layouts begin with the outputs
        options["num_classes"] = first.pop()
    elif not differing and shapes.keys() < built.keys():
        options["num_classes"] = 0
    if built != shapes and _built_shapes(model.zoo_name, options) != shapes:
        raise ValueError(
            f"model: not as zoo.create_model made it ({', '.join(list(differing)[:3])} differ), so a file could not say how to "
            "build it; zoo.save_weights writes the values alone"
        )
    return options


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in torch_tensors(model).items()}


def _built_shapes(name: str, options: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    chosen = options_from_json(json.dumps(options))
    return _shapes(nnx.eval_shape(lambda: create_model(name, **chosen)))


def _outputs(options: Mapping[str, Any], name: str) -> int:
    """How many classes a model has."""
    return 0 if options.get("features_only") else options.get("num_classes", model_info(name).num_classes)


def _names(what: str, given: Sequence[str] | None, known: tuple[str, ...], count: int | None) -> tuple[str, ...]:
    """The names given, else those known if they are as many as they must be."""
    if given is None:
        return known if count is None or len(known) == count else ()
    if isinstance(given, str) or not all(isinstance(name, str) for name in given):
        raise ValueError(f"{what}: {given!r} given, a list of texts is needed")
    if len(given) not in (0, count):
        raise ValueError(f"{what}: {len(given)} names given, the model has {count or 'no'} of them")
    return tuple(given)
