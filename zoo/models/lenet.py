"""LeNet-5: the modern form, and as LeCun, Bottou, Bengio and Haffner published it in 1998."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import kernels
from zoo.arguments import as_rngs, whole
from zoo.layers import initializers
from zoo.layers.conv import Conv
from zoo.layers.linear import Linear
from zoo.layers.operators import implementation_scope
from zoo.models.lenet_tables import C3_CONNECTIONS, digit_bitmaps
from zoo.registry import register

PAPER = "LeCun, Bottou, Bengio, Haffner 1998, Gradient-based learning applied to document recognition"


class LeNet5(nnx.Module):
    """The modern LeNet-5: two 5x5 convolutions with ReLU and 2x2 max-pooling, then 120, 84 and num_classes units.

    Input [batch, 32, 32, in_channels], output logits [batch, num_classes], or with num_classes=0 the 84 units [batch, 84].
    """

    input_layer = "conv1"
    classifier_layers = ("fc3",)

    def __init__(
        self,
        *,
        num_classes: int = 10,
        in_channels: int = 1,
        dtype: jnp.dtype | type | None = None,
        param_dtype: jnp.dtype | type = jnp.float32,
        implementation: str | None = None,
        rngs: nnx.Rngs,
    ):
        policy: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "implementation": implementation, "rngs": rngs}
        self.conv1 = Conv(in_channels, 6, 5, **policy)
        self.conv2 = Conv(6, 16, 5, **policy)
        self.fc1 = Linear(400, 120, activation="relu", flattened=(5, 5, 16), **policy)
        self.fc2 = Linear(120, 84, activation="relu", **policy)
        self.num_features, self.implementation = 84, implementation
        self.fc3: Linear | None = Linear(84, num_classes, **policy) if num_classes else None

    def features(self, x: jax.Array) -> dict[str, jax.Array]:
        """Feature maps by stage: pool1 [batch, 14, 14, 6], pool2 [batch, 5, 5, 16], fc1 [batch, 120], fc2 [batch, 84]."""
        _check_input(x, self.conv1.in_channels)
        stages = {}
        with implementation_scope(self.implementation):
            x = stages["pool1"] = kernels.max_pool(jax.nn.relu(self.conv1(x)), 2)
            x = stages["pool2"] = kernels.max_pool(jax.nn.relu(self.conv2(x)), 2)
        x = stages["fc1"] = self.fc1(jax.lax.collapse(x, 1))
        stages["fc2"] = self.fc2(x)
        return stages

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.features(x)["fc2"]
        return x if self.fc3 is None else self.fc3(x)

    def torch_ignored(self) -> tuple[str, ...]:
        """Beginnings of names that weights may have and this model does not need."""
        return ("fc3.",) if self.fc3 is None else ()

    def reset_classifier(self, num_classes: int, *, rngs: nnx.Rngs | int | jax.Array = 0) -> None:
        """Replace the last layer by a new one with `num_classes` outputs; 0 takes it off."""
        policy: dict[str, Any] = {"dtype": self.fc2.dtype, "implementation": self.implementation, "rngs": as_rngs(rngs)}
        number = whole("num_classes", num_classes, 0)
        self.fc3 = Linear(self.num_features, number, param_dtype=self.fc2.kernel.dtype, **policy) if number else None


class Subsample(nnx.Module):
    """S2 and S4 of LeNet-5: the sum of each 2x2 block times a trainable coefficient per map, plus a trainable bias."""

    def __init__(self, channels: int, *, param_dtype: jnp.dtype | type = jnp.float32, rngs: nnx.Rngs):
        bound = 2.4 / 4  # the paper's rule with a fan-in of four
        self.scale = nnx.Param(initializers.uniform(bound)(rngs.params(), (channels,), param_dtype))
        self.bias = nnx.Param(initializers.zeros(None, (channels,), param_dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        n, h, w, c = x.shape
        blocks = x.reshape(n, h // 2, 2, w // 2, 2, c).sum((2, 4))
        return blocks * self.scale[...].astype(x.dtype) + self.bias[...].astype(x.dtype)


class PartialConv(nnx.Module):
    """C3 of LeNet-5: a 5x5 convolution in which each output map sees only the input maps of Table I.

    Only the connected weights exist as parameters, [connections, 5, 5]; the dense kernel is filled from them.
    """

    def __init__(self, *, dtype: jnp.dtype | type | None, param_dtype: jnp.dtype | type, rngs: nnx.Rngs):
        pairs = [(i, o) for o, inputs in enumerate(C3_CONNECTIONS) for i in inputs]
        self.pairs = tuple(pairs)
        bounds = np.array([2.4 / (25 * len(C3_CONNECTIONS[o])) for _, o in pairs])[:, None, None]
        drawn = initializers.uniform(1.0)(rngs.params(), (len(pairs), 5, 5), param_dtype)
        self.kernel = nnx.Param(drawn * jnp.asarray(bounds, param_dtype))
        self.bias = nnx.Param(initializers.zeros(None, (len(C3_CONNECTIONS),), param_dtype))
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        x, kernel, bias = nnx.nn.dtypes.promote_dtype((x, self.kernel[...], self.bias[...]), dtype=self.dtype)
        inputs, outputs = (np.array(side) for side in zip(*self.pairs, strict=True))
        dense = jnp.zeros((5, 5, 6, 16), kernel.dtype).at[:, :, inputs, outputs].set(kernel.transpose(1, 2, 0))
        return kernels.conv(x, dense, 1, "VALID") + bias


def _fan_in_uniform_1998(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype | type = jnp.float32) -> jax.Array:
    return initializers.uniform(2.4 / math.prod(shape[:-1]))(key, shape, dtype)


def scaled_tanh(x: jax.Array) -> jax.Array:
    """1.7159 tanh(2x/3), so that f(1) = 1 and f(-1) = -1 (appendix A of the paper)."""
    return 1.7159 * jnp.tanh(x * (2 / 3))


class LeNet5Original(nnx.Module):
    """LeNet-5 as published: scaled tanh, trainable subsampling, partial connections in C3, radial basis function output.

    Input [batch, 32, 32, 1], with the paper's scaling white -0.1 and black 1.175. The output [batch, num_classes] is the
    negative squared distance to each class's fixed target code (a 7x12 bitmap of the digit), so that the largest marks
    the predicted class, and its softmax cross-entropy is the paper's discriminative criterion (eq. 9 with j large). There are
    exactly 60,000 trainable parameters for any number of classes, since the codes are not trained.
    """

    stages = ("c1", "s2", "c3", "s4", "c5", "f6")

    def __init__(
        self,
        *,
        num_classes: int = 10,
        in_channels: int = 1,
        dtype: jnp.dtype | type | None = None,
        param_dtype: jnp.dtype | type = jnp.float32,
        implementation: str | None = None,
        rngs: nnx.Rngs,
    ):
        policy: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "implementation": implementation, "rngs": rngs}
        initial: dict[str, Any] = {"kernel_init": _fan_in_uniform_1998, "bias_init": initializers.zeros}
        self.c1 = Conv(in_channels, 6, 5, **initial, **policy)
        self.s2 = Subsample(6, param_dtype=param_dtype, rngs=rngs)
        self.c3 = PartialConv(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.s4 = Subsample(16, param_dtype=param_dtype, rngs=rngs)
        self.c5 = Linear(400, 120, **initial, **policy)  # a 5x5 convolution of a 5x5 map
        self.f6 = Linear(120, 84, **initial, **policy)
        self.codes = nnx.Variable(jnp.asarray(digit_bitmaps(whole("num_classes", num_classes)), param_dtype))

    def features(self, x: jax.Array) -> dict[str, jax.Array]:
        """Feature maps by the paper's names: c1, s2, c3, s4 [batch, height, width, maps], c5 [batch, 120], f6 [batch, 84]."""
        _check_input(x, self.c1.in_channels)
        stages = {}
        for name in ("c1", "s2", "c3", "s4", "c5", "f6"):
            if name == "c5":
                x = jax.lax.collapse(x, 1)
            x = stages[name] = scaled_tanh(getattr(self, name)(x))
        return stages

    def __call__(self, x: jax.Array) -> jax.Array:
        code = self.features(x)["f6"]
        targets = self.codes[...].astype(code.dtype)
        return -jnp.square(code[:, None, :] - targets).sum(-1)

    def reset_classifier(self, num_classes: int, *, rngs: nnx.Rngs | int | jax.Array | None = None) -> None:
        """New target codes for `num_classes` classes; nothing is drawn from `rngs`, for the codes are fixed."""
        self.codes = nnx.Variable(jnp.asarray(digit_bitmaps(whole("num_classes", num_classes)), self.codes.dtype))


def _check_input(x: jax.Array, channels: int) -> None:
    if x.ndim != 4 or x.shape[1:] != (32, 32, channels):
        raise ValueError(f"x: shape {x.shape} given, [batch, 32, 32, {channels}] is needed")


@register("lenet5", paper=PAPER, params=61_706, macs=416_520, input_shape=(32, 32, 1), num_classes=10)
def lenet5(**options) -> LeNet5:
    """LeNet-5 with ReLU and max-pooling."""
    return LeNet5(**options)


@register("lenet5_original", paper=PAPER, params=60_000, macs=415_680, input_shape=(32, 32, 1), num_classes=10)
def lenet5_original(**options) -> LeNet5Original:
    """LeNet-5 as published in 1998."""
    return LeNet5Original(**options)
