"""Weights in and out: names to and from torch, safetensors, .pth files, downloads."""

from typing import TYPE_CHECKING

from zoo import lazy

if TYPE_CHECKING:
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

# The same for who runs it; a test holds them against each other.
_HOMES = {
    "zoo.weights.download": ("DownloadError",),
    "zoo.weights.info": ("WeightsInfo", "weights_info"),
    "zoo.weights.load": (
        "LoadReport",
        "WeightsMismatchError",
        "load_weights",
        "save_weights",
        "to_torch_state_dict",
        "torch_arrays",
    ),
    "zoo.weights.names": ("TorchTensor", "torch_tensors"),
    "zoo.weights.pth": ("WeightsFileError", "read_pth"),
}
if not TYPE_CHECKING:  # a checker that saw it would take every name for a name of this package
    __getattr__, __dir__ = lazy.attach(__name__, _HOMES)

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
