"""Weights in and out: names to and from torch, safetensors, .pth files, downloads."""

from zoo.weights.download import DownloadError
from zoo.weights.info import WeightsInfo, weights_info
from zoo.weights.load import (
    LoadReport,
    WeightsMismatchError,
    load_weights,
    save_weights,
    to_torch_state_dict,
    torch_arrays,
)
from zoo.weights.names import TorchTensor, torch_tensors
from zoo.weights.pth import WeightsFileError, read_pth

__all__ = [
    "DownloadError",
    "LoadReport",
    "TorchTensor",
    "WeightsFileError",
    "WeightsInfo",
    "WeightsMismatchError",
    "load_weights",
    "read_pth",
    "save_weights",
    "to_torch_state_dict",
    "torch_arrays",
    "torch_tensors",
    "weights_info",
]
