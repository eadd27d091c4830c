"""ResNet v1.5, ResNeXt and Wide ResNet as in torchvision, and the ResNets for CIFAR of He et al. 2015."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import kernels
from zoo.layers import initializers
from zoo.layers.conv import Conv
from zoo.layers.dropout import drop_path
from zoo.layers.dropout import dropout as dropout_layer
from zoo.layers.linear import Linear
from zoo.layers.norm import BatchNormAct
from zoo.layers.operators import implementation_scope
from zoo.layers.pooling import check_global_pool, global_pool
from zoo.models.base import ImageModel, run_list
from zoo.registry import register
from zoo.weights.published import published

PAPER = "He, Zhang, Ren, Sun 2015, Deep residual learning for image recognition"
PAPER_RESNEXT = "Xie, Girshick, Dollár, Tu, He 2016, Aggregated residual transformations for deep neural networks"
PAPER_WIDE = "Zagoruyko, Komodakis 2016, Wide residual networks"


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, **options: Any) -> Conv:
    padding = options.get("dilation", 1) * (kernel_size // 2)
    return Conv(
        in_channels,
        out_channels,
        kernel_size,
        strides=stride,
        padding=padding,
        use_bias=False,
        kernel_init=initializers.kaiming_normal_fan_out,
        **options,
    )


class _Block(nnx.Module):
    """What the two residual blocks share: relu(branch(x) + shortcut(x)), [batch, height, width, channels] in and out."""

    convolutions: ClassVar[int]  # of the branch

    def __init__(self, in_channels: int, out_channels: int, stride: int, pad_shortcut: bool, rate: float, policy: dict):
        self.drop_path = drop_path(rate, rngs=policy["rngs"])
        self.stride, self.out_channels = stride, out_channels
        self.downsample: nnx.List | None
        if (stride != 1 or in_channels != out_channels) and not pad_shortcut:
            conv = _conv(in_channels, out_channels, 1, stride, **policy)
            self.downsample = nnx.List([conv, BatchNormAct(out_channels, activation=None, **policy)])
        else:
            self.downsample = None

    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        pairs = [(f"conv{number}", f"bn{number}") for number in range(1, self.convolutions + 1)]
        return pairs if self.downsample is None else [*pairs, ("downsample.0", "downsample.1")]

    def shortcut(self, x: jax.Array) -> jax.Array:
        if self.downsample is not None:
            return run_list(self.downsample, x)
        if self.stride == 1 and x.shape[-1] == self.out_channels:
            return x
        # Option A of He et al.: every second pixel, and zeros for the channels that are new (half before, half after, as in
        # the CIFAR ResNets that circulate for torch).
        missing = self.out_channels - x.shape[-1]
        x = x[:, :: self.stride, :: self.stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (missing // 2, missing - missing // 2)))

    def join(self, norm: BatchNormAct, branch: jax.Array, x: jax.Array) -> jax.Array:
        """relu(norm(branch) + shortcut), as one operator unless the branch may be dropped in between."""
        if self.drop_path is None:
            return norm(branch, self.shortcut(x))
        return jax.nn.relu(self.drop_path(norm(branch)) + self.shortcut(x))

    def last_norm(self, scale_init: Callable, policy: dict) -> BatchNormAct:
        activation = "relu" if self.drop_path is None else None
        return BatchNormAct(self.out_channels, activation=activation, scale_init=scale_init, **policy)


class BasicBlock(_Block):
    """Two 3x3 convolutions."""

    expansion, convolutions = 1, 2

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        base_width: int = 64,
        pad_shortcut: bool = False,
        stochastic_depth: float = 0.0,
        scale_init: Callable,
        **policy: Any,
    ):
        if groups != 1 or base_width != 64 or dilation != 1:
            raise ValueError("groups, width_per_group, replace_stride_with_dilation: only ResNets with bottlenecks take them")
        super().__init__(in_channels, width, stride, pad_shortcut, stochastic_depth, policy)
        self.conv1 = _conv(in_channels, width, 3, stride, **policy)
        self.bn1 = BatchNormAct(width, **policy)
        self.conv2 = _conv(width, width, 3, **policy)
        self.bn2 = self.last_norm(scale_init, policy)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.bn1(self.conv1(x))
        return self.join(self.bn2, self.conv2(y), x)


class Bottleneck(_Block):
    """1x1, 3x3 and 1x1 convolutions; the stride is in the 3x3 convolution ("v1.5"); in the paper it is in the first 1x1."""

    expansion, convolutions = 4, 3

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        base_width: int = 64,
        pad_shortcut: bool = False,
        stochastic_depth: float = 0.0,
        scale_init: Callable,
        **policy: Any,
    ):
        out_channels = width * self.expansion
        super().__init__(in_channels, out_channels, stride, pad_shortcut, stochastic_depth, policy)
        inner = width * base_width // 64 * groups
        self.conv1 = _conv(in_channels, inner, 1, **policy)
        self.bn1 = BatchNormAct(inner, **policy)
        self.conv2 = _conv(inner, inner, 3, stride, groups=groups, dilation=dilation, **policy)
        self.bn2 = BatchNormAct(inner, **policy)
        self.conv3 = _conv(inner, out_channels, 1, **policy)
        self.bn3 = self.last_norm(scale_init, policy)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.bn1(self.conv1(x))
        y = self.bn2(self.conv2(y))
        return self.join(self.bn3, self.conv3(y), x)


class ResNet(ImageModel):
    """A stem, stages of residual blocks, the mean over the map, one dense layer.

    Input [batch, height, width, in_channels] of any size (224 in the paper); output logits [batch, num_classes]. Features: maps
    stem, layer1, layer2, ... [batch, height, width, channels]; pool [batch, channels].

    Args:
      block: `BasicBlock` or `Bottleneck`.
      layers: blocks per stage.
      widths: channels of each stage, before the bottleneck's factor of four.
      cifar: a 3x3 stem without pool and shortcuts without parameters, as the paper has for CIFAR-10.
      zero_init_residual: start the last norm of each block at zero, so that every block starts as the identity.
      groups, width_per_group: of the 3x3 convolutions in bottlenecks (ResNeXt, Wide ResNet).
      replace_stride_with_dilation: for each stage but the first, whether to dilate instead of striding.
      num_classes: outputs; with 0 there is no last layer, and the output is its input.
      global_pool: "avg", "max", "avgmax" (the mean of both), or, with num_classes=0, None for the unpooled last map.
      dropout: rate before the last layer.
      stochastic_depth: rate at which the last block's branch is dropped per example; it grows linearly from 0 at the first.
      space_to_depth: see `Conv`; the stem's.
      remat: names of stages to rematerialize, or True for all.
    """

    input_layer = "conv1"

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: tuple[int, ...],
        *,
        widths: tuple[int, ...] = (64, 128, 256, 512),
        cifar: bool = False,
        num_classes: int = 1000,
        in_channels: int = 3,
        global_pool: str | None = "avg",
        zero_init_residual: bool = False,
        groups: int = 1,
        width_per_group: int = 64,
        replace_stride_with_dilation: tuple[bool, ...] | None = None,
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        space_to_depth: bool = False,
        remat: bool | Collection[str] = False,
        dtype: jnp.dtype | type | None = None,
        param_dtype: jnp.dtype | type = jnp.float32,
        implementation: str | None = None,
        rngs: nnx.Rngs,
    ):
        stages = tuple(f"layer{number}" for number in range(1, len(layers) + 1))
        super().__init__(("stem", *stages), remat)
        dilate = tuple(replace_stride_with_dilation or (False,) * (len(layers) - 1))
        if len(dilate) != len(layers) - 1:
            raise ValueError(
                f"replace_stride_with_dilation: {replace_stride_with_dilation!r} given, {len(layers) - 1} flags are needed"
            )
        policy: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "implementation": implementation, "rngs": rngs}
        if cifar:
            self.conv1 = _conv(in_channels, widths[0], 3, **policy)
        else:
            self.conv1 = _conv(in_channels, widths[0], 7, 2, space_to_depth=space_to_depth, **policy)
        self.bn1 = BatchNormAct(widths[0], **policy)
        rates = iter(np.linspace(0.0, stochastic_depth, sum(layers)).tolist())
        channels, dilation = widths[0], 1
        for number, (name, width, depth) in enumerate(zip(stages, widths, layers, strict=True)):
            stride, before = (1 if number == 0 else 2), dilation
            if number and dilate[number - 1]:
                stride, dilation = 1, dilation * stride
            blocks = []
            for index in range(depth):
                blocks.append(
                    block(
                        channels,
                        width,
                        stride=stride if index == 0 else 1,
                        dilation=before if index == 0 else dilation,
                        groups=groups,
                        base_width=width_per_group,
                        pad_shortcut=cifar,
                        stochastic_depth=next(rates),
                        scale_init=initializers.zeros if zero_init_residual else initializers.ones,
                        **policy,
                    )
                )
                channels = width * block.expansion
            setattr(self, name, nnx.List(blocks))
        self.dropout = dropout_layer(dropout, rngs=rngs)
        self.fc = Linear(channels, num_classes or 1, **policy)
        self.cifar, self.implementation = cifar, implementation
        self.global_pool = check_global_pool(global_pool, num_classes)
        self.finish(num_classes)

    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        return [("conv1", "bn1")]

    def stage_layers(self, name: str) -> tuple[str, ...]:
        return ("conv1", "bn1") if name == "stem" else (name,)

    def run(self, name: str, modules: tuple[Any, ...], x: jax.Array) -> jax.Array:
        if name != "stem":
            return run_list(modules[0], x)
        conv, norm = modules
        x = norm(conv(x))
        if self.cifar:
            return x
        with implementation_scope(self.implementation):
            return kernels.max_pool(x, 3, 2, ((1, 1), (1, 1)))

    def head_features(self, x: jax.Array) -> dict[str, jax.Array]:
        """pool [batch, channels], or nothing where the map is not pooled."""
        return {"pool": global_pool(x, self.global_pool)} if self.global_pool else {}


def _register(name: str, paper: str, params: int, macs: int, block: type, layers: tuple[int, ...], **config: Any) -> None:
    @register(name, paper=paper, params=params, macs=macs, input_shape=(224, 224, 3), weights=published(name))
    def build(**options) -> ResNet:
        return ResNet(block, layers, **config, **options)


MIDDLE, DEEP = (3, 4, 6, 3), (3, 4, 23, 3)  # blocks per stage with 34 or 50, and with 101 layers

_register("resnet18", PAPER, 11_689_512, 1_814_073_344, BasicBlock, (2, 2, 2, 2))
_register("resnet34", PAPER, 21_797_672, 3_663_761_408, BasicBlock, MIDDLE)
_register("resnet50", PAPER, 25_557_032, 4_089_184_256, Bottleneck, MIDDLE)
_register("resnet101", PAPER, 44_549_160, 7_801_405_440, Bottleneck, DEEP)
_register("resnet152", PAPER, 60_192_808, 11_513_626_624, Bottleneck, (3, 8, 36, 3))
_register("resnext50_32x4d", PAPER_RESNEXT, 25_028_904, 4_230_479_872, Bottleneck, MIDDLE, groups=32, width_per_group=4)
_register("resnext101_32x8d", PAPER_RESNEXT, 88_791_336, 16_414_015_488, Bottleneck, DEEP, groups=32, width_per_group=8)
_register("resnext101_64x4d", PAPER_RESNEXT, 83_455_272, 15_460_270_080, Bottleneck, DEEP, groups=64, width_per_group=4)
_register("wide_resnet50_2", PAPER_WIDE, 68_883_240, 11_398_021_120, Bottleneck, MIDDLE, width_per_group=128)
_register("wide_resnet101_2", PAPER_WIDE, 126_886_696, 22_753_050_624, Bottleneck, DEEP, width_per_group=128)


def _register_cifar(depth: int, params: int, macs: int) -> None:
    @register(f"resnet{depth}_cifar", paper=PAPER, params=params, macs=macs, input_shape=(32, 32, 3), num_classes=10)
    def build(*, num_classes: int = 10, **options) -> ResNet:
        layers = ((depth - 2) // 6,) * 3
        return ResNet(BasicBlock, layers, widths=(16, 32, 64), cifar=True, num_classes=num_classes, **options)


_register_cifar(20, 269_722, 40_551_040)
_register_cifar(32, 464_154, 68_862_592)
_register_cifar(44, 658_586, 97_174_144)
_register_cifar(56, 853_018, 125_485_696)
_register_cifar(110, 1_727_962, 252_887_680)
