"""Where weights come from: files of several kinds, folders of models and runs, mappings, the network."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from zoo.weights.download import download, fetch_hub, fetch_torchvision
from zoo.weights.info import WeightsInfo
from zoo.weights.pth import WeightsFileError, in_a_line, read_checkpoint
from zoo.weights.published import imagenet_classes, is_published, preprocessing_of
from zoo.weights.runs import read_run_checkpoint, weights_in
from zoo.weights.state_dicts import StateDict, find_state_dict

# What torch.save's files are called.
TORCH_FILES = (".pth", ".pt", ".bin", ".ckpt", ".pth.tar", ".pt.tar")


def read(
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


def source_info(source: str, cache: str | os.PathLike | None = None) -> WeightsInfo:
    """What is known of the weights at a source that is written as text, without reading their values.

    A file from the hub is fetched for it. Of one of torch.save, or at a URL, only what torchvision published is known.

    Raises:
      ValueError, WeightsFileError, DownloadError: as `zoo.load_weights`.
    """
    if source.startswith("torchvision://"):
        return _published_info(source.removeprefix("torchvision://"), source)
    elsewhere = source.startswith(("https://", "http://"))
    path = fetch_hub(source.removeprefix("hf://"), cache) if source.startswith("hf://") else pathlib.Path(source)
    path = weights_in(path) if path.is_dir() else path
    if path.suffix.lower() == ".safetensors" and not elsewhere:
        return read_info(path, source)
    return _published_info(path.stem, source) if is_published(path.name) else WeightsInfo(source)


def is_torchvisions(source: str) -> bool:
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
        raise WeightsFileError(f"source: {path}: damaged or no safetensors file ({in_a_line(error)})") from error


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
        raise WeightsFileError(f"source: {path}: damaged or no safetensors file ({in_a_line(error)})") from error


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
