"""VGG with 11, 13, 16 and 19 layers, with and without batch normalization."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import kernels
from zoo.layers import initializers
from zoo.layers.conv_block import ConvBlock
from zoo.layers.dropout import drop
from zoo.layers.dropout import dropout as dropout_layer
from zoo.layers.linear import Linear
from zoo.layers.operators import implementation_scope
from zoo.layers.pooling import adaptive_avg_pool
from zoo.models.base import ImageModel, run_list
from zoo.registry import register
from zoo.weights.published import published

PAPER = "Simonyan, Zisserman 2014, Very deep convolutional networks for large-scale image recognition"

WIDTHS = (64, 128, 256, 512, 512)
# Convolutions in each of the five blocks: the paper's configurations A, B, D and E.
DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VGG(ImageModel):
    """Five blocks of 3x3 convolutions, each ending in a 2x2 max-pool, then three dense layers.

    Input [batch, height, width, in_channels], at least 32 x 32 (224 in the paper); output logits [batch, num_classes].
    Features: maps block1 to block5, pooled, [batch, height, width, channels]; fc6, fc7 [batch, 4096].

    Args:
      depths: convolutions per block.
      num_classes: outputs; with 0 there is no last layer, and the output is its input.
      batch_norm: whether each is followed by batch normalization.
      dropout: rate between the dense layers.
      remat: names of stages to rematerialize, or True for all.
    """

    input_layer = "blocks.0.0.conv"
    classifier_layers = ("fc8",)
    last_dropout = "fc8_dropout"
    min_size = 32

    def __init__(
        self,
        depths: tuple[int, ...],
        *,
        batch_norm: bool,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.5,
        remat: bool | Collection[str] = False,
        dtype: jnp.dtype | type | None = None,
        param_dtype: jnp.dtype | type = jnp.float32,
        implementation: str | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(tuple(f"block{number}" for number in range(1, 6)), remat)
        policy: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "implementation": implementation, "rngs": rngs}
        blocks, channels = [], in_channels
        for depth, width in zip(depths, WIDTHS, strict=True):
            block = []
            for _ in range(depth):
                block.append(
                    ConvBlock(
                        channels,
                        width,
                        3,
                        padding=1,
                        norm=batch_norm,
                        use_bias=True,
                        kernel_init=initializers.kaiming_normal_fan_out,
                        bias_init=initializers.zeros,
                        **policy,
                    )
                )
                channels = width
            blocks.append(nnx.List(block))
        self.blocks = nnx.List(blocks)
        dense: dict[str, Any] = {"kernel_init": initializers.normal(0.01), "bias_init": initializers.zeros, **policy}
        self.fc6 = Linear(7 * 7 * 512, 4096, activation="relu", flattened=(7, 7, 512), **dense)
        self.fc7 = Linear(4096, 4096, activation="relu", **dense)
        self.fc8 = Linear(4096, num_classes or 1, **dense)
        self.fc7_dropout = dropout_layer(dropout, rngs=rngs)
        self.fc8_dropout = dropout_layer(dropout, rngs=rngs)
        self.implementation = implementation
        self.finish(num_classes)

    def stage_layers(self, name: str) -> tuple[str, ...]:
        return (f"blocks.{int(name.removeprefix('block')) - 1}",)

    def run(self, name: str, modules: tuple[Any, ...], x: jax.Array) -> jax.Array:
        x = run_list(modules[0], x)
        with implementation_scope(self.implementation):
            return kernels.max_pool(x, 2)

    def head_features(self, x: jax.Array) -> dict[str, jax.Array]:
        """fc6 and fc7, [batch, 4096]."""
        x = adaptive_avg_pool(x, 7)  # the identity at 224 x 224
        hidden = self.fc6(jax.lax.collapse(x, 1))
        return {"fc6": hidden, "fc7": self.fc7(drop(self.fc7_dropout, hidden))}

    def drop_others(self) -> None:
        super().drop_others()
        self.blocks = nnx.List(list(self.blocks)[: len(self.stages)])

    def torch_modules(self) -> dict[str, nnx.Module]:
        names: dict[str, nnx.Module] = {}
        position = 0  # in torch's one sequence of convolutions, norms, activations and pools
        for block in self.blocks:
            for unit in block:
                names[f"features.{position}"] = unit.conv
                if unit.bn is not None:
                    names[f"features.{position + 1}"] = unit.bn
                position += 2 if unit.bn is None else 3
            position += 1
        return {**names, "classifier.0": self.fc6, "classifier.3": self.fc7, "classifier.6": self.fc8}

    def rename_foreign(self, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Torch's names for weights in timm's form, where the dense layers are convolutions with names of their own."""
        timm = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3", "head.fc": "classifier.6"}
        renamed = {}
        for name, value in tensors.items():
            layer, _, kind = name.rpartition(".")
            flat = layer in timm and value.ndim == 4
            renamed[f"{timm.get(layer, layer)}.{kind}"] = value.reshape(len(value), -1) if flat else value
        return renamed


def _register(layers: int, batch_norm: bool, params: int, macs: int) -> None:
    name = f"vgg{layers}_bn" if batch_norm else f"vgg{layers}"

    @register(name, paper=PAPER, params=params, macs=macs, input_shape=(224, 224, 3), weights=published(name))
    def build(**options) -> VGG:
        return VGG(DEPTHS[layers], batch_norm=batch_norm, **options)


_register(11, False, 132_863_336, 7_609_090_048)
_register(11, True, 132_868_840, 7_609_090_048)
_register(13, False, 133_047_848, 11_308_466_176)
_register(13, True, 133_053_736, 11_308_466_176)
_register(16, False, 138_357_544, 15_470_264_320)
_register(16, True, 138_365_992, 15_470_264_320)
_register(19, False, 143_667_240, 19_632_062_464)
_register(19, True, 143_678_248, 19_632_062_464)
