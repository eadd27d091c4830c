"""Both GANs written in torch, as peers: DCGAN in the layout of torch's own example, and the plain MLP."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def torch_dcgan(size: int, width: int, channels: int) -> nn.ModuleDict:
    """Generator and discriminator for 32 or 64 pixels; `width` channels next to the image."""
    stages = {64: 4, 32: 3}[size]
    layers: list[nn.Module] = []
    previous = 100
    for index in range(stages):
        out = width * 2 ** (stages - 1 - index)
        stride, padding = (1, 0) if index == 0 else (2, 1)
        layers += [nn.ConvTranspose2d(previous, out, 4, stride, padding, bias=False), nn.BatchNorm2d(out), nn.ReLU(True)]
        previous = out
    generator = nn.Sequential(*layers, nn.ConvTranspose2d(previous, channels, 4, 2, 1, bias=False), nn.Tanh())
    layers = [nn.Conv2d(channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for index in range(1, stages):
        layers += [
            nn.Conv2d(width * 2 ** (index - 1), width * 2**index, 4, 2, 1, bias=False),
            nn.BatchNorm2d(width * 2**index),
            nn.LeakyReLU(0.2),
        ]
    discriminator = nn.Sequential(*layers, nn.Conv2d(width * 2 ** (stages - 1), 1, 4, 1, 0, bias=False))
    wrap = lambda main: nn.ModuleDict({"main": main})
    return nn.ModuleDict({"generator": wrap(generator), "discriminator": wrap(discriminator)})


def torch_mlp() -> nn.ModuleDict:
    """Generator 100 -> 256 -> 784 and discriminator 784 -> 256 -> 1."""
    generator = nn.ModuleDict({"fc1": nn.Linear(100, 256), "fc2": nn.Linear(256, 784)})
    return nn.ModuleDict(
        {"generator": generator, "discriminator": nn.ModuleDict({"fc1": nn.Linear(784, 256), "fc2": nn.Linear(256, 1)})}
    )


def generate(name: str, peer: Any, z: torch.Tensor) -> torch.Tensor:
    """Images [batch, channels, height, width] from latent vectors [batch, 100]."""
    if name == "dcgan":
        return peer["generator"]["main"](z[:, :, None, None])
    generator = peer["generator"]
    return torch.tanh(generator["fc2"](torch.relu(generator["fc1"](z)))).reshape(-1, 1, 28, 28)


def score(name: str, peer: Any, images: torch.Tensor) -> torch.Tensor:
    """The discriminator's logits [batch] of images [batch, channels, height, width]."""
    if name == "dcgan":
        return peer["discriminator"]["main"](images).flatten()
    discriminator = peer["discriminator"]
    return discriminator["fc2"](nn.functional.leaky_relu(discriminator["fc1"](images.flatten(1)), 0.2)).flatten()
