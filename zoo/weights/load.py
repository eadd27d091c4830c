"""Weights into a model and out of it."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from kernels.runtime.sizes import cdiv
from zoo.weights.info import WeightsInfo
from zoo.weights.names import TorchTensor, layer_at, torch_tensors, zoo_tensors
from zoo.weights.sources import is_torchvisions, read
from zoo.weights.state_dicts import likeliest_prefix, listed, without_prefix
from zoo.weights.writing import write_safetensors

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did, by the names in the source.

    Attributes:
      loaded: tensors copied unchanged.
      adapted: kernels of the first layer, summed or repeated for another number of channels.
      kept: tensors of a classifier with another number of classes, for which the model keeps its initial values.
      skipped: other entries of the source, such as a checkpoint's epoch, optimizer or settings.
    """

    loaded: tuple[str, ...]
    adapted: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


class WeightsMismatchError(ValueError):
    """The weights are not those of this model; the message names the first few differences.

    Attributes:
      missing, unexpected: all names that only the model has, and all that only the weights have.
      misshapen: all tensors whose shape or kind differs, with both.
    """

    def __init__(self, model: str, missing: list[str], unexpected: list[str], misshapen: list[str], prefix: str):
        parts = [("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen)]
        lines = [f"{what}: {listed(names)}" for what, names in parts if names]
        super().__init__("; ".join([f"source: not the weights of this {model}", *lines, *([prefix] if prefix else [])]))
        self.missing, self.unexpected, self.misshapen = missing, unexpected, misshapen


def load_weights(
    model: nnx.Module,
    source: Any,
    *,
    adapt: bool = True,
    prefix: str | None = None,
    cache: str | os.PathLike | None = None,
    sha256: str | None = None,
    progress: bool | None = None,
) -> LoadReport:
    """Set every parameter, running statistic and counter of `model` from `source`, or none of them.

    Args:
      source: a .safetensors file in torch's layout or the zoo's own (`save_weights` writes both); a file that torch.save
        wrote (.pth, .pt, .pth.tar, .ckpt, .bin), read without torch and without running code from it; a torch state_dict, or
        any mapping from torch's names to arrays; a checkpoint, file or mapping, that holds a state_dict among other entries,
        which are ignored (averaged weights are preferred); "torchvision://NAME" (`model_info(...).weights` lists the names);
        `"hf://owner/repo[/file][@revision]"`; an https:// URL of a file; the folder of `zoo.save_model` or of a training run,
        whose newest checkpoint is used if it is unfinished, or the folder of one checkpoint.
      adapt: whether the model's first and last layer may differ from the weights. A classifier with another number of classes
        then keeps its initial values, and the first kernel is adapted to another number of channels as in timm: summed for
        one channel, else repeated and scaled by the ratio. Both are logged. With False, such a difference is an error.
      prefix: what precedes each name in the weights but not in the model, such as "backbone."; tensors without it are ignored.
        None strips the prefixes of torch.compile, data parallelism, averaging and training scripts; "" strips none.
      cache: folder for downloads; None for $ZOO_CACHE, or the user's cache folder. A file that is there needs no network.
      sha256: of the file at a URL, needed if its name does not end in the first eight hex digits.
      progress: whether a download shows a bar; None shows one only if standard error is a terminal.

    Returns:
      What was loaded, adapted, kept and skipped.

    Raises:
      WeightsMismatchError: names are missing or unexpected, or shapes differ; the model is unchanged.
      WeightsFileError: the file is damaged, or is not a file of weights.
      DownloadError: the file cannot be downloaded, or is not the one published.
      ValueError: `source` is none of the above, or no name in it begins with `prefix`.
    """
    found_in, info = read(source, cache, sha256, progress)
    by_name, own = torch_tensors(model), zoo_tensors(model)
    found = without_prefix(found_in.tensors, by_name.keys() | own.keys(), prefix)
    # torch.optim.swa_utils.AveragedModel counts what it averaged.
    counters = tuple(name for name in found.tensors if name.endswith("n_averaged") and name not in by_name)
    given = {name: value for name, value in found.tensors.items() if name not in counters}
    if hasattr(model, "rename_foreign"):
        given = model.rename_foreign(given)
    wanted = by_name
    if len(own.keys() & given.keys()) > len(by_name.keys() & given.keys()):
        layouts = {id(tensor.variable): tensor for tensor in by_name.values()}
        wanted = {name: layouts.get(id(tensor.variable), tensor) for name, tensor in own.items()}
        given = {name: _in_torch_layout(value, wanted.get(name)) for name, value in given.items()}
    ignored = getattr(model, "torch_ignored", lambda: ())()
    given = {name: value for name, value in given.items() if name in wanted or not name.startswith(tuple(ignored))}

    kept = _other_classes(model, wanted, given) if adapt else ()
    adapted = _other_channels(model, wanted, given) if adapt else ()
    for name in adapted:
        given[name] = _adapt_channels(given[name], wanted[name].shape[1])
    # Files older than the counter do not have it; torch itself then keeps its own.
    missing = [n for n in wanted if n not in given and not n.endswith("num_batches_tracked")]
    unexpected = [n for n in given if n not in wanted]
    common = [n for n in wanted if n in given and n not in kept]
    values, misshapen = {}, []
    for name in common:
        tensor, value = wanted[name], given[name]
        try:
            if value.shape != tensor.shape:
                raise ValueError(f"{_shape(value.shape)} given, {_shape(tensor.shape)} needed")
            if (value.dtype.kind in "iub") != (np.dtype(tensor.variable.get_value().dtype).kind in "iub"):
                raise ValueError(f"{value.dtype} given, {tensor.variable.get_value().dtype} needed")
            values[name] = tensor.convert(value)
        except (ValueError, OverflowError) as error:
            misshapen.append(f"{name} ({error})")
    if missing or unexpected or misshapen:
        hint = "" if prefix else likeliest_prefix(given, wanted)
        raise WeightsMismatchError(type(model).__name__, missing, unexpected, misshapen, hint)

    for name, value in values.items():
        _assign(wanted[name].variable, value)
    if kept:
        logger.warning("the classifier has another number of classes than the weights: %s not loaded", ", ".join(kept))
    if adapted:
        logger.warning("%s fitted to another number of input channels", ", ".join(adapted))
    skipped = (*found_in.skipped, *found.skipped, *counters)
    if skipped:
        taken = "".join(f" {part!r}" for part in (found_in.entry, found.prefix) if part)
        logger.warning("%s: weights taken%s; left out: %s", info.source or "source", taken and f" from{taken}", listed(skipped))
    if hasattr(model, "weights_loaded"):
        model.weights_loaded(bool(info.source) and is_torchvisions(info.source), described=bool(info.model))
    _describe(model, info, kept)
    return LoadReport(tuple(n for n in values if n not in adapted), tuple(adapted), tuple(kept), skipped)


def save_weights(
    model: nnx.Module,
    path: str | os.PathLike,
    *,
    layout: Literal["torch", "zoo"] = "torch",
    info: WeightsInfo | None = None,
) -> None:
    """Write every parameter, running statistic and counter to a .safetensors file, atomically.

    Args:
      layout: "torch" for torch's names and layouts, as torch's load_state_dict expects; "zoo" for the model's own.
      info: what the file's metadata say about them; `zoo.save_model` collects it.

    Raises:
      ValueError: the path does not end in .safetensors, or the layout is unknown.
    """
    path = pathlib.Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"path: {str(path)!r} given, a name that ends in .safetensors is needed")
    if layout not in ("torch", "zoo"):
        raise ValueError(f"layout: {layout!r} given, 'torch' or 'zoo' is needed")
    arrays = torch_arrays(model) if layout == "torch" else {n: t.export() for n, t in zoo_tensors(model).items()}
    metadata = {"format": "pt" if layout == "torch" else "zoo"} | (info.to_metadata() if info else {})
    write_safetensors(path, arrays, metadata)


def torch_arrays(model: nnx.Module) -> dict[str, np.ndarray]:
    """Torch's state_dict of the model as NumPy arrays; torch is not needed."""
    return {name: tensor.export() for name, tensor in torch_tensors(model).items()}


def to_torch_state_dict(model: nnx.Module) -> dict[str, Any]:
    """Torch's state_dict of the model, as torch tensors on the CPU, for torch's load_state_dict.

    Bit for bit what `load_weights` read, including running statistics and counters, if the parameters have the same dtype.

    Raises:
      ModuleNotFoundError: torch is not installed (`zoo.weights.torch_arrays` does not need it).
    """
    import torch

    def tensor(array: np.ndarray) -> Any:
        if array.dtype == jnp.bfloat16:
            return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
        return torch.from_numpy(array.copy())

    return {name: tensor(array) for name, array in torch_arrays(model).items()}


def _describe(model: Any, info: WeightsInfo, kept: tuple[str, ...]) -> None:
    """Keep with the model what is known of its weights: not the names of classes that its classifier does not have."""
    info = dataclasses.replace(info, classes=()) if kept else info
    if info != WeightsInfo() or hasattr(model, "zoo_weights"):
        model.zoo_weights = info


def _in_torch_layout(value: np.ndarray, tensor: TorchTensor | None) -> np.ndarray:
    if tensor is None or tensor.to_torch is None or value.ndim != tensor.variable.get_value().ndim:
        return value
    try:
        return tensor.to_torch(value)
    except ValueError:  # a shape that the layout cannot have; it is reported with the others
        return value


def _other_classes(model: nnx.Module, wanted: dict[str, TorchTensor], given: dict[str, np.ndarray]) -> tuple[str, ...]:
    """Names of the classifier's tensors, if all that differs is that their first dimension is another common number."""
    layers = [layer_at(model, path) for path in getattr(model, "classifier_layers", ())]
    variables = {id(tensor.variable) for layer in layers if layer is not None for tensor in torch_tensors(layer).values()}
    names = [name for name, tensor in wanted.items() if id(tensor.variable) in variables]
    shapes = [(given[name].shape, wanted[name].shape) for name in names if name in given]
    if len(shapes) < len(names) or any(not old or old[1:] != new[1:] for old, new in shapes):
        return ()
    classes = {old[0] for old, _ in shapes}
    return tuple(names) if len(classes) == 1 and shapes[0][0] != shapes[0][1] else ()


def _other_channels(model: nnx.Module, wanted: dict[str, TorchTensor], given: dict[str, np.ndarray]) -> tuple[str, ...]:
    """Name of the first layer's kernel, if it differs in its input channels only."""
    if not hasattr(model, "input_layer"):
        return ()
    kernel = layer_at(model, model.input_layer).kernel
    for name, tensor in wanted.items():
        if tensor.variable is kernel and name in given:
            old, new = given[name].shape, tensor.shape
            if len(old) == 4 and old[1] != new[1] and old[:1] + old[2:] == new[:1] + new[2:]:
                return (name,)
    return ()


def _adapt_channels(weight: np.ndarray, channels: int) -> np.ndarray:
    """[out, in, height, width] for another number of input channels, such that equal channels give what they gave before."""
    old = weight.shape[1]
    if channels == 1:
        return weight.sum(1, keepdims=True)
    repeated = np.tile(weight, (1, cdiv(channels, old), 1, 1))[:, :channels]
    return repeated * np.asarray(old / channels, weight.dtype)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _assign(variable: nnx.Variable, value: np.ndarray) -> None:
    old = variable.get_value()
    if isinstance(old, jax.Array):
        variable.set_value(jax.device_put(value, old.sharding))  # a sharded parameter stays sharded
    else:
        variable.set_value(jnp.asarray(value))  # of an abstract model, as nnx.eval_shape makes them
