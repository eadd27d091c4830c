"""AlexNet: torchvision's one tower of 2014, and the two grouped towers of 2012."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import kernels
from zoo.layers import initializers
from zoo.layers.conv import Conv
from zoo.layers.dropout import drop
from zoo.layers.dropout import dropout as dropout_layer
from zoo.layers.linear import Linear
from zoo.layers.operators import implementation_scope
from zoo.layers.pooling import adaptive_avg_pool
from zoo.models.base import ImageModel
from zoo.registry import register
from zoo.weights.published import published

PAPER = "Krizhevsky 2014, One weird trick for parallelizing convolutional neural networks"
PAPER_ORIGINAL = "Krizhevsky, Sutskever, Hinton 2012, ImageNet classification with deep convolutional neural networks"


class AlexNet(ImageModel):
    """Five convolutions, three overlapping 3x3/2 max-pools, three dense layers, as in torchvision.

    Input [batch, height, width, in_channels], at least 63 x 63 (224 in the paper); output logits [batch, num_classes], or, with
    num_classes=0, the input of the last layer. Features: maps pool1, pool2, conv3, conv4, pool5 [batch, height, width,
    channels]; fc6, fc7 [batch, 4096].
    """

    input_layer = "conv1"
    classifier_layers = ("fc8",)
    last_dropout = "fc8_dropout"
    min_size = 63

    widths: tuple[int, ...] = (64, 192, 384, 256, 256)
    groups: tuple[int, ...] = (1, 1, 1, 1, 1)
    dropout_before: tuple[str, ...] = ("fc6", "fc7")

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.5,
        remat: bool | Collection[str] = False,
        space_to_depth: bool = False,
        dtype: jnp.dtype | type | None = None,
        param_dtype: jnp.dtype | type = jnp.float32,
        implementation: str | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(("pool1", "pool2", "conv3", "conv4", "pool5"), remat)
        policy: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "implementation": implementation, "rngs": rngs}
        widths, groups = self.widths, self.groups
        self.conv1 = Conv(
            in_channels, widths[0], 11, strides=4, padding=2, space_to_depth=space_to_depth, **self.initial("conv1"), **policy
        )
        self.conv2 = Conv(widths[0], widths[1], 5, padding=2, groups=groups[1], **self.initial("conv2"), **policy)
        self.conv3 = Conv(widths[1], widths[2], 3, padding=1, groups=groups[2], **self.initial("conv3"), **policy)
        self.conv4 = Conv(widths[2], widths[3], 3, padding=1, groups=groups[3], **self.initial("conv4"), **policy)
        self.conv5 = Conv(widths[3], widths[4], 3, padding=1, groups=groups[4], **self.initial("conv5"), **policy)
        flattened = (6, 6, widths[4])
        self.fc6 = Linear(36 * widths[4], 4096, activation="relu", flattened=flattened, **self.initial("fc6"), **policy)
        self.fc7 = Linear(4096, 4096, activation="relu", **self.initial("fc7"), **policy)
        self.fc8 = Linear(4096, num_classes or 1, **self.initial("fc8"), **policy)
        rates = {name: dropout if name in self.dropout_before else 0.0 for name in ("fc6", "fc7", "fc8")}
        self.fc6_dropout = dropout_layer(rates["fc6"], rngs=rngs)
        self.fc7_dropout = dropout_layer(rates["fc7"], rngs=rngs)
        self.fc8_dropout = dropout_layer(rates["fc8"], rngs=rngs)
        self.implementation = implementation
        self.finish(num_classes)

    def initial(self, layer: str) -> dict[str, Any]:
        """Initial values of a layer; none given here, so torch's own."""
        return {}

    def pool(self, x: jax.Array) -> jax.Array:
        with implementation_scope(self.implementation):
            return kernels.max_pool(x, 3, 2)

    def after_activation(self, x: jax.Array) -> jax.Array:
        """What stands between the ReLU and the pool of the first two layers."""
        return x

    def stage_layers(self, name: str) -> tuple[str, ...]:
        return (f"conv{name[-1]}",)

    def run(self, name: str, modules: tuple[Any, ...], x: jax.Array) -> jax.Array:
        x = jax.nn.relu(modules[0](x))
        if name in ("pool1", "pool2"):
            x = self.after_activation(x)
        return self.pool(x) if name.startswith("pool") else x

    def head_features(self, x: jax.Array) -> dict[str, jax.Array]:
        """fc6 and fc7, [batch, 4096]."""
        x = adaptive_avg_pool(x, 6)  # the identity at 224 x 224
        hidden = self.fc6(drop(self.fc6_dropout, jax.lax.collapse(x, 1)))
        return {"fc6": hidden, "fc7": self.fc7(drop(self.fc7_dropout, hidden))}

    def torch_modules(self) -> dict[str, nnx.Module]:
        return {
            "features.0": self.conv1,
            "features.3": self.conv2,
            "features.6": self.conv3,
            "features.8": self.conv4,
            "features.10": self.conv5,
            "classifier.1": self.fc6,
            "classifier.4": self.fc7,
            "classifier.6": self.fc8,
        }


class AlexNetOriginal(AlexNet):
    """AlexNet as published in 2012: 96 filters first, two groups, local response norm after the first two layers.

    Its dropout zeroes outputs of the two hidden dense layers, where torchvision's zeroes their inputs. Input as `AlexNet`.
    """

    widths = (96, 256, 384, 384, 256)
    groups = (1, 2, 1, 2, 2)
    dropout_before = ("fc7", "fc8")

    def initial(self, layer: str) -> dict[str, Any]:
        # Section 5: weights from a normal of deviation 0.01, biases 1 in the second, fourth, fifth and the hidden dense
        # layers, so that their ReLUs start with positive inputs, and 0 elsewhere.
        ones = layer in ("conv2", "conv4", "conv5", "fc6", "fc7")
        return {
            "kernel_init": initializers.normal(0.01),
            "bias_init": initializers.ones if ones else initializers.zeros,
        }

    def after_activation(self, x: jax.Array) -> jax.Array:
        with implementation_scope(self.implementation):
            return kernels.local_response_norm(x, size=5, alpha=1e-4, beta=0.75, k=2.0)


@register(
    "alexnet",
    paper=PAPER,
    params=61_100_840,
    macs=714_188_480,
    input_shape=(224, 224, 3),
    weights=published("alexnet"),
)
def alexnet(**options) -> AlexNet:
    """AlexNet as torchvision defines it."""
    return AlexNet(**options)


@register("alexnet_original", paper=PAPER_ORIGINAL, params=60_965_224, macs=724_406_816, input_shape=(224, 224, 3))
def alexnet_original(**options) -> AlexNetOriginal:
    """AlexNet as published in 2012."""
    return AlexNetOriginal(**options)
