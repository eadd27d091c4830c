"""Generative adversarial networks: the fully connected one of 2014 and DCGAN."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import kernels
from zoo.layers.conv import Conv
from zoo.layers.conv_transpose import ConvTranspose
from zoo.layers.linear import Linear
from zoo.layers.norm import BatchNormAct
from zoo.layers.operators import implementation_scope
from zoo.layers.spectral_norm import SpectralNorm
from zoo.registry import register

GOODFELLOW = "Goodfellow et al. 2014, Generative adversarial nets"
RADFORD = "Radford, Metz, Chintala 2015, Unsupervised representation learning with deep convolutional GANs"
SLOPE = 0.2  # of LeakyReLU in every discriminator here

normal_002 = jax.nn.initializers.normal(0.02)


def check_latent(z: jax.Array, size: int) -> None:
    """Raise ValueError unless z is [batch, size]."""
    if z.ndim != 2 or z.shape[1] != size:
        raise ValueError(f"z: shape {z.shape} given, latent vectors [batch, {size}] are needed")


def one_hot(labels: jax.Array | None, num_classes: int | None, like: jax.Array) -> jax.Array:
    """[batch, num_classes] of the dtype of `like`; zero columns where the network knows no classes."""
    if (labels is None) != (num_classes is None):
        given = "none given" if labels is None else "given"
        raise ValueError(f"labels: {given}, and the network was built {'with' if num_classes else 'without'} num_classes")
    if labels is None or num_classes is None:
        return jnp.zeros((like.shape[0], 0), like.dtype)
    return jax.nn.one_hot(labels, num_classes, dtype=like.dtype)


class Gan(nnx.Module):
    """A generator and a discriminator. Called on latent vectors [batch, latent_size], it generates images.

    ``generator(z, labels=None)`` gives images [batch, height, width, channels] between -1 and 1, ``discriminator(images,
    labels=None)`` scores [batch], the logit of "real". Both take labels [batch] if and only if built with `num_classes`.
    """

    def __init__(self, generator: nnx.Module, discriminator: nnx.Module):
        self.generator, self.discriminator = generator, discriminator

    @property
    def latent_size(self) -> int:
        return self.generator.latent_size  # type: ignore[attr-defined]

    @property
    def num_classes(self) -> int | None:
        return self.generator.num_classes  # type: ignore[attr-defined]

    def __call__(self, z: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        return self.generator(z, labels)  # type: ignore[operator]

    def features(self, z: jax.Array) -> dict[str, jax.Array]:
        """The generated images, and the discriminator's view of them by stage."""
        images = self(z)
        return {"images": images} | self.discriminator.features(images)  # type: ignore[attr-defined]


class MlpGenerator(nnx.Module):
    """latent_size -> hidden ReLU -> height * width * channels tanh; a conditional one appends the label's one-hot code."""

    def __init__(self, latent_size: int, hidden: int, image: tuple[int, int, int], num_classes: int | None, **policy: Any):
        self.latent_size, self.image, self.num_classes = latent_size, image, num_classes
        self.implementation = policy["implementation"]
        self.fc1 = Linear(latent_size + (num_classes or 0), hidden, **policy)
        self.fc2 = Linear(hidden, math.prod(image), **policy)

    def __call__(self, z: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        check_latent(z, self.latent_size)
        z = jnp.concatenate([z, one_hot(labels, self.num_classes, z)], 1)
        images = _mlp(z, [self.fc1, self.fc2], "relu", "tanh", self.implementation)
        return images.reshape(-1, *self.image)


class MlpDiscriminator(nnx.Module):
    """height * width * channels -> hidden LeakyReLU(0.2) -> 1; a conditional one appends the label's one-hot code."""

    def __init__(self, hidden: int, image: tuple[int, int, int], num_classes: int | None, spectral_norm: bool, **policy: Any):
        self.image, self.num_classes, self.implementation = image, num_classes, policy["implementation"]
        wrap = lambda layer: SpectralNorm(layer, rngs=policy["rngs"]) if spectral_norm else layer
        self.fc1 = wrap(Linear(math.prod(image) + (num_classes or 0), hidden, **policy))
        self.fc2 = wrap(Linear(hidden, 1, **policy))
        self.spectral_norm = spectral_norm

    def __call__(self, images: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        x = self._flat(images, labels)
        if self.spectral_norm:
            return self.fc2(jax.nn.leaky_relu(self.fc1(x), SLOPE))[:, 0]
        return _mlp(x, [self.fc1, self.fc2], "leaky_relu", None, self.implementation)[:, 0]

    def _flat(self, images: jax.Array, labels: jax.Array | None) -> jax.Array:
        if images.shape[1:] != self.image:
            raise ValueError(f"images: shape {images.shape} given, [batch, {', '.join(map(str, self.image))}] is needed")
        x = jax.lax.collapse(images, 1)
        return jnp.concatenate([x, one_hot(labels, self.num_classes, x)], 1)

    def features(self, images: jax.Array) -> dict[str, jax.Array]:
        """The hidden layer, [batch, hidden]."""
        return {"hidden": jax.nn.leaky_relu(self.fc1(self._flat(images, None)), SLOPE)}


def _mlp(x: jax.Array, layers: list[Any], activation: str, final: str | None, implementation: str | None) -> jax.Array:
    weights = [layer.kernel[...] for layer in layers]
    x, *weights = nnx.nn.dtypes.promote_dtype((x, *weights), dtype=layers[0].dtype)
    biases = [layer.bias[...].astype(x.dtype) for layer in layers]
    with implementation_scope(implementation):
        return kernels.mlp(x, weights, biases, activation, final, negative_slope=SLOPE)


class DcganGenerator(nnx.Module):
    """Transposed convolutions from 1x1 to image_size, each but the last with batch norm and ReLU; tanh at the end.

    `main` has torch's own indices (pytorch/examples dcgan): convolution, batch norm, ReLU, convolution, ...
    """

    def __init__(
        self, latent_size: int, width: int, size: int, channels: int, num_classes: int | None, form: str | None, **policy: Any
    ):
        self.latent_size, self.num_classes = latent_size, num_classes
        stages = int(math.log2(size)) - 2
        widths = [width * 2**k for k in reversed(range(stages))]
        convs, norms = [], []
        previous = latent_size + (num_classes or 0)
        for index, out in enumerate([*widths, channels]):
            stride, padding = (1, 0) if index == 0 else (2, 1)
            convs.append(
                ConvTranspose(
                    previous, out, 4, stride=stride, padding=padding, use_bias=False, form=form if index else None,
                    kernel_init=normal_002, **policy,
                )
            )  # fmt: skip
            if index < stages:
                norms.append(BatchNormAct(out, activation="relu", scale_init=_scale_init, **policy))
            previous = out
        self.convs, self.norms = nnx.List(convs), nnx.List(norms)

    def torch_modules(self) -> dict[str, nnx.Module]:
        named = {f"main.{3 * i}": conv for i, conv in enumerate(self.convs)}
        return named | {f"main.{3 * i + 1}": norm for i, norm in enumerate(self.norms)}

    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        return [(f"convs.{i}", f"norms.{i}") for i in range(len(self.norms))]

    def __call__(self, z: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        check_latent(z, self.latent_size)
        x = jnp.concatenate([z, one_hot(labels, self.num_classes, z)], 1)[:, None, None, :]
        for conv, norm in zip(self.convs, self.norms, strict=False):
            x = norm(conv(x))
        return jnp.tanh(self.convs[-1](x))


class DcganDiscriminator(nnx.Module):
    """Strided convolutions from image_size to 4x4 and one logit, LeakyReLU(0.2), batch norm after all but the first and last.

    `main` has torch's own indices. A conditional one adds the inner product of the label's embedding with the last feature
    map's mean to the logit (Miyato, Koyama 2018, projection).
    """

    def __init__(
        self,
        width: int,
        size: int,
        channels: int,
        num_classes: int | None,
        spectral_norm: bool,
        norm: str | None,
        **policy: Any,
    ):
        self.size, self.num_classes = size, num_classes
        stages = int(math.log2(size)) - 2
        wrap = lambda layer: SpectralNorm(layer, rngs=policy["rngs"]) if spectral_norm else layer
        more: dict[str, Any] = {"use_bias": norm is None, "kernel_init": normal_002, **policy}
        convs, norms, previous = [], [], channels
        for index in range(stages):
            out = width * 2**index
            convs.append(wrap(Conv(previous, out, 4, strides=2, padding=1, **more)))
            if index and norm:
                norms.append(BatchNormAct(out, activation=None, scale_init=_scale_init, **policy))
            previous = out
        convs.append(wrap(Conv(previous, 1, 4, **more)))
        self.convs, self.norms, self.norm = nnx.List(convs), nnx.List(norms), norm
        init = normal_002(policy["rngs"].params(), (num_classes or 0, previous), policy["param_dtype"])
        self.embedding = nnx.Param(init) if num_classes else None

    def torch_modules(self) -> dict[str, Any]:
        # Convolution, LeakyReLU, then convolution, batch norm, LeakyReLU, ...
        named = {f"main.{0 if i == 0 else 3 * i - 1 if self.norm else 2 * i}": conv for i, conv in enumerate(self.convs)}
        named |= {f"main.{3 * i + 3}": norm for i, norm in enumerate(self.norms)}
        return named | ({} if self.embedding is None else {"embedding": self.embedding})

    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        return [(f"convs.{i + 1}", f"norms.{i}") for i in range(len(self.norms))]

    def features(self, images: jax.Array) -> dict[str, jax.Array]:
        """Feature maps by stage, stage1 with half the image's size to 4x4."""
        if images.ndim != 4 or images.shape[1:3] != (self.size, self.size):
            raise ValueError(f"images: shape {images.shape} given, [batch, {self.size}, {self.size}, channels] is needed")
        stages, x = {}, images
        for index in range(len(self.convs) - 1):
            x = self.convs[index](x)
            if index and self.norm:
                x = self.norms[index - 1](x)
            x = stages[f"stage{index + 1}"] = jax.nn.leaky_relu(x, SLOPE)
        return stages

    def __call__(self, images: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        last = list(self.features(images).values())[-1]
        logit = self.convs[-1](last)[:, 0, 0, 0]
        codes = one_hot(labels, self.num_classes, last)
        if self.embedding is None:
            return logit
        return logit + ((codes @ self.embedding[...].astype(last.dtype)) * last.mean((1, 2))).sum(-1)


def _scale_init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    return 1 + normal_002(key, shape, dtype)  # N(1, 0.02), as DCGAN's code initializes the scale


def _check(**values: int | None) -> None:
    for name, value in values.items():
        if value is None and name == "num_classes":
            continue
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: {value!r} given, a whole number of at least 1 is needed")


@register("gan_mlp", paper=GOODFELLOW, params=428_561, macs=226_304, input_shape=(100,), num_classes=0)
def gan_mlp(
    *,
    num_classes: int | None = None,
    in_channels: int = 1,
    latent_size: int = 100,
    hidden: int = 256,
    image_size: int = 28,
    spectral_norm: bool = False,
    **policy: Any,
) -> Gan:
    """The plain fully connected GAN. `num_classes` makes it conditional (Mirza, Osindero 2014)."""
    _check(num_classes=num_classes, latent_size=latent_size, hidden=hidden, image_size=image_size)
    image = (image_size, image_size, in_channels)
    return Gan(
        MlpGenerator(latent_size, hidden, image, num_classes, **policy),
        MlpDiscriminator(hidden, image, num_classes, spectral_norm, **policy),
    )


@register("dcgan", paper=RADFORD, params=6_342_272, macs=104_628_224, input_shape=(100,), num_classes=0)
def dcgan(
    *,
    num_classes: int | None = None,
    in_channels: int = 3,
    latent_size: int = 100,
    image_size: int = 64,
    generator_width: int = 64,
    discriminator_width: int = 64,
    spectral_norm: bool = False,
    discriminator_norm: str | None = "batch",
    form: str | None = None,
    **policy: Any,
) -> Gan:
    """DCGAN at image_size x image_size, a power of two, at least 8.

    Args:
      generator_width, discriminator_width: channels of the layer next to the image; each further layer has twice as many.
      discriminator_norm: "batch", or None, which Wasserstein loss with gradient penalty needs.
      form: of the transposed convolutions, see kernels.conv_transpose.
    """
    widths = {"generator_width": generator_width, "discriminator_width": discriminator_width}
    _check(num_classes=num_classes, latent_size=latent_size, **widths)
    if image_size < 8 or image_size & (image_size - 1):
        raise ValueError(f"image_size: {image_size} given, a power of two of at least 8 is needed")
    if discriminator_norm not in ("batch", None):
        raise ValueError(f"discriminator_norm: {discriminator_norm!r} given, it is 'batch' or None")
    return Gan(
        DcganGenerator(latent_size, generator_width, image_size, in_channels, num_classes, form, **policy),
        DcganDiscriminator(
            discriminator_width, image_size, in_channels, num_classes, spectral_norm, discriminator_norm, **policy
        ),
    )
