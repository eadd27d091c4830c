"""Weights into a model and out of it."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from kernels.runtime.sizes import cdiv
from zoo.weights.download import download, fetch_hub, fetch_torchvision
from zoo.weights.info import WeightsInfo
from zoo.weights.names import TorchTensor, layer_at, torch_tensors, zoo_tensors
from zoo.weights.pth import WeightsFileError, read_checkpoint
from zoo.weights.published import imagenet_classes, is_published, preprocessing_of
from zoo.weights.runs import read_run_checkpoint, weights_in
from zoo.weights.state_dicts import StateDict, find_state_dict, likeliest_prefix, listed, without_prefix
from zoo.weights.writing import write_safetensors

logger = logging.getLogger(__name__)
# What torch.save's files are called.
TORCH_FILES = (".pth", ".pt", ".bin", ".ckpt", ".pth.tar", ".pt.tar")


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did, by the names of the source.

    Attributes:
      loaded: tensors taken over as they are.
      adapted: kernels of the first layer, summed or repeated for another number of channels.
      kept: tensors of a classifier with another number of classes, which the model keeps as they were drawn.
      skipped: what else the source holds: a checkpoint's epoch, optimizer, settings.
    """

    loaded: tuple[str, ...]
    adapted: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


class WeightsMismatchError(ValueError):
    """The weights are not those of this model; the message names the first few differences.

    Attributes:
      missing, unexpected: every name that the weights lack, or have beyond the model's.
      misshapen: every tensor of another shape or kind, with both.
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
        any mapping from torch's names to arrays; a checkpoint, file or mapping, that holds a state_dict beside other things,
        which are left out: averaged weights before others; "torchvision://NAME" (`model_info(...).weights` lists the names);
        "hf://owner/repo[/file][@revision]"; an https:// URL of a file; the folder of `zoo.save_model` or of a training run,
        whose newest checkpoint is taken while it is not finished, or the folder of one checkpoint.
      adapt: whether a model may differ from the weights in its ends. A classifier with another number of classes then keeps
        what was drawn for it, and the first kernel is fitted to another number of channels as timm does: summed for one
        channel, else repeated and scaled by the ratio. Both are logged. Without, such a difference is an error.
      prefix: what stands before each name in the weights and not in the model, such as "backbone."; the tensors without are
        left out. None takes off what torch.compile, data parallelism, averaging and training scripts put there; "" nothing.
      cache: folder for what is downloaded; None for $ZOO_CACHE, or the user's own. A file that is there needs no network.
      sha256: of the file at a URL, needed where its name does not end in the first eight hex digits.
      progress: whether a download shows a bar; None for where standard error is a terminal.

    Returns:
      What was loaded, adapted, kept and left out.

    Raises:
      WeightsMismatchError: names are missing or unexpected, or shapes differ: all at once, and the model untouched.
      WeightsFileError: the file is damaged, or is no file of weights.
      DownloadError: the file cannot be fetched, or is not the one published.
      ValueError: `source` is none of the above, or no name in it begins with `prefix`.
    """
    read, info = _read(source, cache, sha256, progress)
    by_name, own = torch_tensors(model), zoo_tensors(model)
    found = without_prefix(read.tensors, by_name.keys() | own.keys(), prefix)
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
    skipped = (*read.skipped, *found.skipped, *counters)
    if skipped:
        taken = "".join(f" {part!r}" for part in (read.entry, found.prefix) if part)
        logger.warning("%s: weights taken%s; left out: %s", info.source or "source", taken and f" from{taken}", listed(skipped))
    if hasattr(model, "weights_loaded"):
        model.weights_loaded(bool(info.source) and _is_torchvisions(info.source), described=bool(info.model))
    _describe(model, info, kept)
    return LoadReport(tuple(n for n in values if n not in adapted), tuple(adapted), tuple(kept), skipped)


def save_weights(
    model: nnx.Module,
    path: str | os.PathLike,
    *,
    layout: Literal["torch", "zoo"] = "torch",
    info: WeightsInfo | None = None,
) -> None:
    """Write every parameter, running statistic and counter to a .safetensors file, in one step or not at all.

    Args:
      layout: "torch" for torch's names and layouts, so that torch's load_state_dict takes them; "zoo" for the model's own.
      info: what the file's metadata say of them; `zoo.save_model` gathers it.

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

    Bit for bit what `load_weights` took, running statistics and counters included, where the parameters have its dtype.

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


def _read(
    source: Any, cache: str | os.PathLike | None, sha256: str | None, progress: bool | None
) -> tuple[StateDict, WeightsInfo]:
    """The tensors of a source, and what is known of them."""
    if isinstance(source, Mapping):
        found = find_state_dict(source, _is_tensor)
        if not found.tensors:
            raise ValueError(f"source: a mapping of {len(source)} entries given that holds no arrays by name")
        return found._replace(tensors={n: _as_numpy(n, value) for n, value in found.tensors.items()}), WeightsInfo()
    if isinstance(source, str) and source.startswith("torchvision://"):
        name = source.removeprefix("torchvision://")
        return read_checkpoint(fetch_torchvision(name, cache, progress)), _published_info(name, source)
    if isinstance(source, str) and source.startswith("hf://"):
        return _read_file(fetch_hub(source.removeprefix("hf://"), cache), source)
    if isinstance(source, str) and source.startswith(("https://", "http://")):
        return _read_file(download(source, sha256=sha256, cache=cache, progress=progress), source)
    if isinstance(source, str | os.PathLike):
        path = pathlib.Path(source)
        path = weights_in(path) if path.is_dir() else path
        if path.is_dir():
            return StateDict(read_run_checkpoint(path)), WeightsInfo(str(path))
        return _read_file(path, str(path))
    raise ValueError(
        f"source: {type(source).__name__} given, a file, a folder of a model or a run, a state_dict, 'torchvision://NAME' or "
        "'hf://owner/repo' is needed"
    )


def _is_torchvisions(source: str) -> bool:
    return source.startswith("torchvision://") or is_published(pathlib.PurePath(source).name)


def _published_info(name: str, source: str) -> WeightsInfo:
    return WeightsInfo(source, classes=imagenet_classes(), preprocessing=preprocessing_of(name), data="ImageNet-1k")


def _read_file(path: pathlib.Path, source: str) -> tuple[StateDict, WeightsInfo]:
    if path.name.lower().endswith(TORCH_FILES):
        return read_checkpoint(path), _published_info(path.stem, source) if is_published(path.name) else WeightsInfo(source)
    if path.suffix.lower() != ".safetensors":
        raise ValueError(f"source: {str(path)!r} given, a file that ends in .safetensors, {', '.join(TORCH_FILES)} is needed")
    return StateDict(dict(read_safetensors(path))), read_info(path, source)


def read_info(path: pathlib.Path, source: str) -> WeightsInfo:
    """What the metadata of a safetensors file say.

    Raises:
      WeightsFileError: damaged, or no safetensors file.
    """
    import safetensors

    try:
        with safetensors.safe_open(path, "numpy") as opened:
            return WeightsInfo.from_metadata(opened.metadata() or {}, source)
    except safetensors.SafetensorError as error:
        raise WeightsFileError(f"source: {path}: damaged or no safetensors file ({error})") from error


def read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file.

    Raises:
      WeightsFileError: damaged, or no safetensors file.
    """
    import safetensors

    dtypes = {"BF16": jnp.bfloat16, "F16": np.float16, "F32": np.float32, "F64": np.float64, "BOOL": np.bool_}
    dtypes |= {f"{kind}{bits}": np.dtype(f"{kind.lower()}{bits // 8}") for kind in "IU" for bits in (8, 16, 32, 64)}
    try:
        # safetensors' own NumPy reader does not know bfloat16.
        entries = safetensors.deserialize(path.read_bytes())
        return {name: np.frombuffer(e["data"], dtypes[e["dtype"]]).reshape(e["shape"]) for name, e in entries}
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise WeightsFileError(f"source: {path}: damaged or no safetensors file ({error})") from error


def _is_tensor(value: Any) -> bool:
    """Whether it is an array of torch, NumPy or JAX; NumPy's scalars are figures that stand beside them."""
    return hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, np.generic | Mapping)


def _as_numpy(name: str, value: Any) -> np.ndarray:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        if value.dtype == torch.bfloat16:
            return value.contiguous().view(torch.int16).numpy().view(jnp.bfloat16)
        return value.numpy()
    array = np.asarray(value)
    if array.dtype == object:
        raise ValueError(f"source: {name} is a {type(value).__name__}, an array is needed")
    return array


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
