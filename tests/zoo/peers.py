"""torchvision's models as peers, and what is needed to compare with them."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import numpy as np
import torch
from flax import nnx

import zoo


@functools.cache
def torchvision_models() -> ModuleType:
    """torchvision.models; its compiled operators, which no classifier here uses, are declared where they are missing."""
    library = torch.library.Library("torchvision", "DEF")  # noqa: TOR901
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    torchvision_models.library = library  # the declarations last as long as this object
    import torchvision.models

    return torchvision.models


def torch_model(name: str, *, seed: int = 0, in_channels: int = 3, dropout: float = 0.0, **options: Any) -> torch.nn.Module:
    """torchvision's model with random weights, and with random norms and running statistics, so that each one matters."""
    torch.manual_seed(seed)
    if name == "googlenet":
        options |= {"init_weights": False, "dropout_aux": 0.0}
    if not name.startswith(("res", "wide")):
        options["dropout"] = dropout
    model = getattr(torchvision_models(), name)(**options)
    if in_channels != 3:
        replace_first_layer(model, in_channels)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                for tensor, low, high in (
                    (module.weight, 0.5, 1.5),
                    (module.bias, -0.5, 0.5),
                    (module.running_mean, -0.5, 0.5),
                    (module.running_var, 0.5, 1.5),
                ):
                    tensor.uniform_(low, high, generator=generator)
                module.num_batches_tracked.fill_(7)
    return model


def replace_first_layer(model: torch.nn.Module, in_channels: int) -> None:
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            parent, _, attribute = name.rpartition(".")
            new = torch.nn.Conv2d(
                in_channels,
                module.out_channels,
                module.kernel_size,
                module.stride,
                module.padding,
                bias=module.bias is not None,
            )
            setattr(model.get_submodule(parent), attribute, new)
            return


def zoo_model(name: str, weights: Any, **options: Any) -> nnx.Module:
    """The zoo's model with `weights`; nothing is drawn for it first, which takes seconds where there are 100 million."""
    if not name.startswith(("res", "wide")):
        options.setdefault("dropout", 0.0)
    if name == "googlenet":
        options.setdefault("dropout_aux", 0.0)
    model = nnx.eval_shape(lambda: zoo.create_model(name, **options))
    zoo.load_weights(model, weights)
    return model


def to_torch(images: np.ndarray) -> torch.Tensor:
    """[batch, height, width, channels] to torch's order."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
