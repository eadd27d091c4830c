"""GoogLeNet: torchvision's with batch normalization, and the paper's of 2014."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

import kernels
from zoo.layers import initializers
from zoo.layers.conv_block import ConvBlock, merged_blocks
from zoo.layers.dropout import drop
from zoo.layers.dropout import dropout as dropout_layer
from zoo.layers.linear import Linear
from zoo.layers.operators import implementation_scope
from zoo.layers.pooling import adaptive_avg_pool, check_global_pool, global_pool
from zoo.models.base import ImageModel
from zoo.registry import register
from zoo.weights.published import published

logger = logging.getLogger(__name__)

PAPER = "Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich 2014, Going deeper with convolutions"

# Input channels, then outputs: 1x1; reduction and 3x3; reduction and 5x5; projection after the pool (table 1 of the paper).
INCEPTIONS = {
    "inception3a": (192, 64, 96, 128, 16, 32, 32),
    "inception3b": (256, 128, 128, 192, 32, 96, 64),
    "inception4a": (480, 192, 96, 208, 16, 48, 64),
    "inception4b": (512, 160, 112, 224, 24, 64, 64),
    "inception4c": (512, 128, 128, 256, 24, 64, 64),
    "inception4d": (512, 112, 144, 288, 32, 64, 64),
    "inception4e": (528, 256, 160, 320, 32, 128, 128),
    "inception5a": (832, 256, 160, 320, 32, 128, 128),
    "inception5b": (832, 384, 192, 384, 48, 128, 128),
}


class GoogLeNetOutputs(NamedTuple):
    """Logits [batch, num_classes] of the classifier and, in training, of the heads on inception4a and inception4d."""

    logits: jax.Array
    aux1: jax.Array
    aux2: jax.Array


class Inception(nnx.Module):
    """Four parallel branches: 1x1; 1x1 then 3x3; 1x1 then 5x5 (3x3 in torchvision); 3x3 max-pool then 1x1.

    Args:
      third_kernel: size of the third branch's second convolution.
      merge_branches: run the three 1x1 convolutions that read the same input as one.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        *,
        third_kernel: int,
        merge_branches: bool,
        implementation: str | None,
        **block: Any,
    ):
        def unit(inputs: int, outputs: int, kernel_size: int) -> ConvBlock:
            return ConvBlock(inputs, outputs, kernel_size, padding=kernel_size // 2, implementation=implementation, **block)

        channels, one, reduce3, three, reduce5, five, projection = widths
        self.branch1 = unit(channels, one, 1)
        self.branch2 = nnx.List([unit(channels, reduce3, 1), unit(reduce3, three, 3)])
        self.branch3 = nnx.List([unit(channels, reduce5, 1), unit(reduce5, five, third_kernel)])
        self.branch4 = unit(channels, projection, 1)
        self.merge_branches, self.implementation = merge_branches, implementation

    def __call__(self, x: jax.Array) -> jax.Array:
        readers = [self.branch1, self.branch2[0], self.branch3[0]]
        one, reduced3, reduced5 = merged_blocks(readers, x) if self.merge_branches else [block(x) for block in readers]
        with implementation_scope(self.implementation):
            pooled = kernels.max_pool(x, 3, 1, ((1, 1), (1, 1)))
        return jnp.concatenate([one, self.branch2[1](reduced3), self.branch3[1](reduced5), self.branch4(pooled)], axis=-1)

    def torch_modules(self) -> dict[str, nnx.Module]:
        # The fourth branch's pool is its first member in torch.
        return {"branch1": self.branch1, "branch2": self.branch2, "branch3": self.branch3, "branch4.1": self.branch4}


class AuxiliaryHead(nnx.Module):
    """A classifier on an inner map, for training: 4x4 means, 1x1 convolution, two dense layers with dropout between."""

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        dropout: float,
        pool: Callable[[jax.Array], jax.Array],
        dense: dict,
        **block: Any,
    ):
        self.conv = ConvBlock(channels, 128, 1, **block)
        self.fc1 = Linear(4 * 4 * 128, 1024, activation="relu", flattened=(4, 4, 128), **dense)
        self.fc2 = Linear(1024, num_classes, **dense)
        self.dropout = dropout_layer(dropout, rngs=dense["rngs"], name="dropout_aux")
        self.pool = pool

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.conv(self.pool(x))
        return self.fc2(drop(self.dropout, self.fc1(jax.lax.collapse(x, 1))))


class GoogLeNet(ImageModel):
    """A stem of three convolutions, nine inception modules, the mean over the map, one dense layer.

    Input [batch, height, width, in_channels], at least 15 x 15 (224 in the paper). The output is the logits
    [batch, num_classes] or, in training mode with auxiliary heads, `GoogLeNetOutputs`. Features: maps conv1 and conv3, pooled,
    and inception3a to inception5b, [batch, height, width, channels]; pool [batch, 1024].

    Args:
      num_classes: outputs; with 0 there is no last layer and no auxiliary head, and the output is the last layer's input.
      global_pool: "avg", "max", "avgmax" (the mean of both), or, with num_classes=0, None for the unpooled last map.
      aux_logits: whether to have the two auxiliary heads.
      transform_input: map images normalized by ImageNet's mean and deviation to the range -1 to 1 that the published
        weights expect. None means False until such weights are loaded from torchvision.
      dropout, dropout_aux: rates before the last dense layer, and inside the auxiliary heads.
      merge_branches: merge the 1x1 convolutions of an inception module that read the same input into one convolution, with
        the same result and the same parameters.
      space_to_depth: see `Conv`; the stem's.
      remat: names of stages to rematerialize, or True for all.
    """

    input_layer = "conv1.conv"
    classifier_layers = ("fc", "aux1.fc2", "aux2.fc2")
    min_size = 15
    third_kernel = 3
    last_pool = 2  # the window of torchvision's last max-pool; the paper has 3 there too
    norm = True
    lrn = False

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        global_pool: str | None = "avg",
        aux_logits: bool = True,
        transform_input: bool | None = None,
        dropout: float = 0.2,
        dropout_aux: float = 0.7,
        merge_branches: bool = True,
        space_to_depth: bool = False,
        remat: bool | Collection[str] = False,
        dtype: jnp.dtype | type | None = None,
        param_dtype: jnp.dtype | type = jnp.float32,
        implementation: str | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(("conv1", "conv3", *INCEPTIONS), remat)
        if transform_input and in_channels != 3:
            raise ValueError(f"transform_input: needs in_channels=3, {in_channels} given")
        policy: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "implementation": implementation, "rngs": rngs}
        block: dict[str, Any] = {"norm": self.norm, "epsilon": 1e-3, **self.conv_initial(), **policy}
        self.conv1 = ConvBlock(in_channels, 64, 7, strides=2, padding=3, space_to_depth=space_to_depth, **block)
        self.conv2 = ConvBlock(64, 64, 1, **block)
        self.conv3 = ConvBlock(64, 192, 3, padding=1, **block)
        for name, widths in INCEPTIONS.items():
            module = Inception(widths, third_kernel=self.third_kernel, merge_branches=merge_branches, **block)
            setattr(self, name, module)
        dense: dict[str, Any] = {**self.dense_initial(), **policy}
        heads: dict[str, Any] = {"dropout": dropout_aux, "pool": self.aux_pool, "dense": dense, **block}
        self.aux1 = AuxiliaryHead(512, num_classes or 1, **heads) if aux_logits else None
        self.aux2 = AuxiliaryHead(528, num_classes or 1, **heads) if aux_logits else None
        self.dropout = dropout_layer(dropout, rngs=rngs)
        self.fc = Linear(1024, num_classes or 1, **dense)
        self.transform_input, self.implementation = transform_input, implementation
        self.deterministic = False
        self.global_pool = check_global_pool(global_pool, num_classes)
        self.finish(num_classes)

    def set_view(self, deterministic: bool | None = None) -> None:
        """Called by nnx.view."""
        if deterministic is not None:
            self.deterministic = deterministic

    def weights_loaded(self, from_torchvision: bool, *, described: bool) -> None:
        """Called when weights were loaded. Torchvision's were trained on inputs from -1 to 1; others may come from those.

        Args:
          described: whether the file says itself with which options its model was built.
        """
        if self.transform_input is not None or self.conv1.conv.in_channels != 3:
            return
        if from_torchvision:
            self.transform_input = True
        elif self.norm and not described:
            logger.warning(
                "transform_input: not given, False taken. Weights that torchvision published, and what was trained from them, "
                "need zoo.create_model(..., transform_input=True); give False where they are others, as torchvision does"
            )

    def torch_ignored(self) -> tuple[str, ...]:
        return super().torch_ignored() if self.aux1 is not None else (*super().torch_ignored(), "aux1.", "aux2.")

    def reset_classifier(self, num_classes: int, *, rngs: nnx.Rngs | int | jax.Array = 0) -> None:
        """As `ImageModel`; without classes the auxiliary heads are taken off too, and do not come back."""
        super().reset_classifier(num_classes, rngs=rngs)
        if num_classes == 0:
            self.aux1 = self.aux2 = None

    def conv_initial(self) -> dict[str, Any]:
        return {"kernel_init": initializers.normal(0.01)}

    def dense_initial(self) -> dict[str, Any]:
        return {"kernel_init": initializers.normal(0.01)}

    @staticmethod
    def aux_pool(x: jax.Array) -> jax.Array:
        """From the map that a head stands on to 4 x 4."""
        return adaptive_avg_pool(x, 4)

    def pool(self, x: jax.Array, window: int = 3) -> jax.Array:
        with implementation_scope(self.implementation):
            return kernels.max_pool(x, window, 2, ceil_mode=True)

    def lrn_where_used(self, x: jax.Array) -> jax.Array:
        if not self.lrn:
            return x
        # The paper gives no constants; these are those of its authors' model in Caffe, which divides 1e-4 by the size.
        with implementation_scope(self.implementation):
            return kernels.local_response_norm(x, size=5, alpha=2e-5, beta=0.75, k=1.0)

    def prepare(self, x: jax.Array) -> jax.Array:
        if not self.transform_input:
            return x
        deviation, mean = jnp.array([0.229, 0.224, 0.225], x.dtype), jnp.array([0.485, 0.456, 0.406], x.dtype)
        return x * (deviation / 0.5) + (mean - 0.5) / 0.5

    def stage_layers(self, name: str) -> tuple[str, ...]:
        return ("conv2", "conv3") if name == "conv3" else (name,)

    def run(self, name: str, modules: tuple[Any, ...], x: jax.Array) -> jax.Array:
        if name == "conv1":
            return self.lrn_where_used(self.pool(modules[0](x)))
        if name == "conv3":
            return self.pool(self.lrn_where_used(modules[1](modules[0](x))))
        if name == "inception4a":
            x = self.pool(x)
        elif name == "inception5a":
            x = self.pool(x, self.last_pool)
        return modules[0](x)

    def head_features(self, x: jax.Array) -> dict[str, jax.Array]:
        """pool [batch, 1024], or nothing where the map is not pooled."""
        return {"pool": global_pool(x, self.global_pool)} if self.global_pool else {}

    def __call__(self, x: jax.Array) -> Any:
        if self.deterministic or self.aux1 is None or self.aux2 is None:
            return super().__call__(x)
        maps = self.feature_maps(x)
        logits = self.forward_head(maps[self.stages[-1]])
        return GoogLeNetOutputs(logits, self.aux1(maps["inception4a"]), self.aux2(maps["inception4d"]))


class GoogLeNetOriginal(GoogLeNet):
    """GoogLeNet as published: 5x5 third branches, local response norm in the stem, biases instead of batch normalization.

    Its auxiliary heads take 5x5 means at stride 3. The paper gives no initial values; these are He et al.'s, with which the
    network trains without batch normalization. Input as `GoogLeNet`.
    """

    third_kernel = 5
    norm = False
    lrn = True
    last_pool = 3

    def __init__(self, *, dropout: float = 0.4, **options: Any):
        super().__init__(dropout=dropout, **options)

    def conv_initial(self) -> dict[str, Any]:
        return {"kernel_init": initializers.kaiming_normal, "bias_init": initializers.zeros}

    def dense_initial(self) -> dict[str, Any]:
        return {"kernel_init": initializers.kaiming_normal, "bias_init": initializers.zeros}

    @staticmethod
    def aux_pool(x: jax.Array) -> jax.Array:
        # 14 x 14 to 4 x 4 at 224; other sizes are brought to what the dense layer reads.
        return adaptive_avg_pool(kernels.avg_pool(x, 5, 3) if min(x.shape[1:3]) >= 5 else x, 4)


# The figures in the registry are those of evaluation: the two auxiliary heads, for training only, would add 6.4 million
# parameters to each.
@register(
    "googlenet", paper=PAPER, params=6_624_904, macs=1_498_376_192, input_shape=(224, 224, 3), weights=published("googlenet")
)
def googlenet(**options) -> GoogLeNet:
    """GoogLeNet as torchvision defines it."""
    return GoogLeNet(**options)


@register("googlenet_original", paper=PAPER, params=6_998_552, macs=1_582_671_872, input_shape=(224, 224, 3))
def googlenet_original(**options) -> GoogLeNetOriginal:
    """GoogLeNet as published in 2014."""
    return GoogLeNetOriginal(**options)
