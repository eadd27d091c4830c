"""Random changes to batches of images, as functions that are traced into the jitted training step and run on the device.

Images are [batch, height, width, channels], float, from 0 to 1, unless a function says otherwise. Each example has its own
random numbers, drawn from `key`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypedDict

import jax
import jax.numpy as jnp

from experiments.data.base import Dataset
from experiments.data.rand_augment import rand_augment
from zoo.preprocessing import Preprocessing

Batch = dict[str, jax.Array]


def random_flip(images: jax.Array, key: jax.Array) -> jax.Array:
    """Left and right swapped in half of the images."""
    swap = jax.random.bernoulli(key, 0.5, (len(images), 1, 1, 1))
    return jnp.where(swap, images[:, :, ::-1], images)


def random_shift(images: jax.Array, key: jax.Array, most: int, mode: str = "constant") -> jax.Array:
    """Moved by up to `most` pixels each way: zero padding, or another `mode` of jnp.pad, and a random crop (He et al. 2015 on
    CIFAR-10)."""
    n, height, width, channels = images.shape
    padded = jnp.pad(images, ((0, 0), (most, most), (most, most), (0, 0)), mode)
    offsets = jax.random.randint(key, (n, 2), 0, 2 * most + 1)
    crop = lambda image, offset: jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), (height, width, channels))
    return jax.vmap(crop)(padded, offsets)


def random_resized_crop(
    images: jax.Array,
    key: jax.Array,
    size: int,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> jax.Array:
    """A part of each image enlarged or reduced to [batch, size, size, channels] (Szegedy et al. 2014), bilinear, antialiased.

    Args:
      scale: range of the part's share of the image's area.
      ratio: range of its width over its height, drawn on a logarithmic scale. A side longer than the image's is cut to it.
    """
    n, height, width, channels = images.shape
    keys = jax.random.split(key, 4)
    area = jax.random.uniform(keys[0], (n,), minval=scale[0], maxval=scale[1]) * height * width
    aspect = jnp.exp(jax.random.uniform(keys[1], (n,), minval=jnp.log(ratio[0]), maxval=jnp.log(ratio[1])))
    sides = jnp.stack([jnp.minimum(jnp.sqrt(area / aspect), height), jnp.minimum(jnp.sqrt(area * aspect), width)], axis=1)
    room = jnp.array([height, width]) - sides
    start = jax.random.uniform(keys[2], (n, 2)) * room

    def crop(image: jax.Array, side: jax.Array, begin: jax.Array) -> jax.Array:
        zoom = size / side
        shape = (size, size, channels)
        return jax.image.scale_and_translate(image, shape, (0, 1), zoom, -begin * zoom, method="linear", antialias=True)

    return jax.vmap(crop)(images, sides, start)


def random_erasing(
    images: jax.Array, key: jax.Array, probability: float, scale: tuple[float, float] = (0.02, 1 / 3)
) -> jax.Array:
    """A rectangle of noise in some of the images (Zhong et al. 2017), of an aspect between 0.3 and 3.3."""
    n, height, width, _ = images.shape
    keys = jax.random.split(key, 3)
    inside = _rectangles(keys[0], n, height, width, scale, (0.3, 3.3))
    chosen = jax.random.bernoulli(keys[1], probability, (n, 1, 1))
    noise = jax.random.uniform(keys[2], images.shape, images.dtype)
    return jnp.where((inside & chosen)[..., None], noise, images)


def mixup(batch: Batch, key: jax.Array, alpha: float, classes: int) -> Batch:
    """Each example mixed with the one that stands opposite in the batch (Zhang et al. 2017); labels become [batch, classes]."""
    keys = jax.random.split(key)
    share = jax.random.beta(keys[0], alpha, alpha, (len(batch["image"]),))
    images, labels = batch["image"], soft_labels(batch["label"], classes)
    weight = share[:, None, None, None].astype(images.dtype)
    return batch | {
        "image": weight * images + (1 - weight) * images[::-1],
        "label": share[:, None] * labels + (1 - share[:, None]) * labels[::-1],
    }


def cutmix(batch: Batch, key: jax.Array, alpha: float, classes: int) -> Batch:
    """A rectangle of each example taken from the opposite one (Yun et al. 2019); labels [batch, classes] mixed by area."""
    keys = jax.random.split(key)
    images, labels = batch["image"], soft_labels(batch["label"], classes)
    n, height, width, _ = images.shape
    cut = 1 - jax.random.beta(keys[0], alpha, alpha, (n,))
    inside = _rectangles(keys[1], n, height, width, cut)
    share = 1 - inside.mean((1, 2))[:, None]
    return batch | {
        "image": jnp.where(inside[..., None], images[::-1], images),
        "label": share * labels + (1 - share) * labels[::-1],
    }


def soft_labels(labels: jax.Array, classes: int) -> jax.Array:
    """Class numbers as [batch, classes] of zeros and ones; soft labels as they are."""
    return labels if labels.ndim == 2 else jax.nn.one_hot(labels.astype(jnp.int32), classes)  # 8 bits wrap around at 256


def _rectangles(
    key: jax.Array, n: int, height: int, width: int, area: Any, ratio: tuple[float, float] = (1.0, 1.0)
) -> jax.Array:
    """[n, height, width], True within a rectangle of that share of the area (a range, or one each), cut at the border."""
    keys = jax.random.split(key, 4)
    if isinstance(area, tuple):
        area = jax.random.uniform(keys[0], (n,), minval=area[0], maxval=area[1])
    aspect = jnp.exp(jax.random.uniform(keys[1], (n,), minval=jnp.log(ratio[0]), maxval=jnp.log(ratio[1]) + 1e-9))
    inside = jnp.ones((n, 1, 1), bool)
    for axis, (length, side) in enumerate(((height, jnp.sqrt(area / aspect)), (width, jnp.sqrt(area * aspect)))):
        half = side * length / 2
        centre = jax.random.uniform(keys[2 + axis], (n,), maxval=length)
        at = jnp.arange(length) + 0.5
        within = (at >= (centre - half)[:, None]) & (at < (centre + half)[:, None])
        inside &= within[:, :, None] if axis == 0 else within[:, None, :]
    return inside


class Changes(TypedDict, total=False):
    """Options of a data set of photographs, as `Augmentation` has them."""

    rand_augment: float
    erase: float
    mixup: float
    cutmix: float


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """`preprocess` of an image data set: uint8 to float on the device, random changes in training, normalization.

    Attributes:
      classes: number of classes, for soft labels.
      mean, deviation: per channel, of values from 0 to 1.
      shift: most pixels to move by. flip: whether to swap left and right. rand_augment: magnitude, 0 to 30; 0 for none.
      erase: probability of an erased rectangle. mixup, cutmix: alpha, 0 for none; with both, each has half of the batches.
    """

    classes: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    shift: int = 0
    flip: bool = False
    rand_augment: float = 0
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name, high in (("shift", 10_000), ("rand_augment", 30), ("erase", 1), ("mixup", 1000), ("cutmix", 1000)):
            if not 0 <= getattr(self, name) <= high:
                raise ValueError(f"{name}: {getattr(self, name)} given, 0 to {high} is needed")

    def __call__(self, batch: Batch, key: jax.Array, train: bool) -> Batch:
        images = batch["image"]
        images = images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images
        keys = jax.random.split(key, 6)
        if train:
            images = random_shift(images, keys[0], self.shift) if self.shift else images
            images = random_flip(images, keys[1]) if self.flip else images
            images = rand_augment(images, keys[2], self.rand_augment) if self.rand_augment else images
            images = random_erasing(images, keys[3], self.erase) if self.erase else images
        batch = batch | {"image": (images - jnp.array(self.mean)) / jnp.array(self.deviation)}
        if not train or not (self.mixup or self.cutmix):
            return batch
        if not (self.mixup and self.cutmix):
            mix, alpha = (mixup, self.mixup) if self.mixup else (cutmix, self.cutmix)
            return mix(batch, keys[4], alpha, self.classes)
        blended, cut = mixup(batch, keys[4], self.mixup, self.classes), cutmix(batch, keys[4], self.cutmix, self.classes)
        first = jax.random.bernoulli(keys[5])
        return jax.tree.map(lambda a, b: jnp.where(first, a, b), blended, cut)

    def picture(self, images: Any) -> Any:
        """Normalized images with their values from 0 to 1 again."""
        return images * jnp.array(self.deviation) + jnp.array(self.mean)


def image_data(
    name: str,
    train: Any,
    test: Any,
    classes: Sequence[str],
    shape: tuple[int, int, int],
    augmentation: Augmentation,
    resize_size: int | tuple[int, int] | None = None,
) -> Dataset:
    """Images [*shape] that are augmented and normalized by `augmentation`, whose values they then have.

    Args:
      resize_size: what an image is resized to before its middle is cut out; see `Preprocessing`. None for its own size.
    """
    return Dataset(
        name=name,
        train=train,
        test=test,
        classes=tuple(classes),
        input_shape=shape,
        preprocess=augmentation,
        picture=augmentation.picture,
        preprocessing=Preprocessing(resize_size or shape[:2], shape[:2], mean=augmentation.mean, std=augmentation.deviation),
    )
