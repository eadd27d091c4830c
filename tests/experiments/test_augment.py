"""Random changes on the device: what each may and may not do, and RandAugment's changes against Pillow's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from experiments.data import augment
from experiments.data.augment import Augmentation
from experiments.data.rand_augment import (
    CHANGES,
    affine,
    autocontrast,
    blend,
    equalize,
    grey,
    posterize,
    rand_augment,
    sharpen,
    solarize,
)

KEY = jax.random.key(0)


@pytest.fixture
def images(rng: np.random.Generator) -> jax.Array:
    return jnp.asarray(rng.integers(0, 256, (16, 12, 10, 3)) / 255, jnp.float32)


def test_flip(images: jax.Array) -> None:
    flipped = augment.random_flip(images, KEY)
    same = (flipped == images).all((1, 2, 3))
    mirrored = (flipped == images[:, :, ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert 0 < int(mirrored.sum()) < 16


def test_shift(images: jax.Array) -> None:
    moved = np.asarray(augment.random_shift(images, KEY, 2))
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    offsets = [
        [(i, j) for i in range(5) for j in range(5) if (padded[n, i : i + 12, j : j + 10] == moved[n]).all()] for n in range(16)
    ]
    assert all(len(found) == 1 for found in offsets)
    assert len({found[0] for found in offsets}) > 5


def test_resized_crop(images: jax.Array) -> None:
    whole = augment.random_resized_crop(images[:, :10], KEY, 10, scale=(1, 1), ratio=(1, 1))
    np.testing.assert_allclose(whole, images[:, :10], atol=1e-5)  # float32 weights of one
    crops = augment.random_resized_crop(images, KEY, 8)
    assert crops.shape == (16, 8, 8, 3)
    assert float(crops.min()) >= -1e-6
    assert float(crops.max()) <= 1 + 1e-6
    # A ramp stays a ramp, no steeper than before.
    ramp = jnp.broadcast_to(jnp.linspace(0, 1, 32)[None, :, None, None], (16, 32, 32, 1))
    slopes = jnp.diff(augment.random_resized_crop(ramp, KEY, 32)[:, 8:24], axis=1)
    np.testing.assert_allclose(slopes, np.broadcast_to(slopes.mean((1, 2, 3), keepdims=True), slopes.shape), atol=1e-4)
    assert float(slopes.max()) <= 1 / 31 + 1e-5


def test_erasing(images: jax.Array) -> None:
    erased = augment.random_erasing(images, KEY, 0.5)
    share = (erased != images).any(-1).mean((1, 2))
    assert 0 < int((share > 0).sum()) < 16
    assert float(share.max()) < 0.5
    np.testing.assert_array_equal(augment.random_erasing(images, KEY, 0.0), images)


@pytest.mark.parametrize("mix", [augment.mixup, augment.cutmix])
def test_mixing_labels_follows_the_images(mix) -> None:
    labels = jnp.arange(6)
    plain = jnp.broadcast_to(jax.nn.one_hot(labels, 6)[:, None, None, :], (6, 20, 20, 6))  # channel = class
    mixed = mix({"image": plain, "label": labels}, KEY, 1.0, 6)
    assert mixed["label"].shape == (6, 6)
    np.testing.assert_allclose(mixed["image"].mean((1, 2)), mixed["label"], atol=1e-5)
    np.testing.assert_allclose(mixed["label"].sum(1), 1, atol=1e-6)
    assert float(mixed["label"].max(1).min()) < 0.99


@pytest.fixture
def picture(rng: np.random.Generator) -> np.ndarray:
    ramp = np.linspace(30, 200, 24 * 20).reshape(24, 20, 1)
    return (ramp + rng.integers(0, 40, (24, 20, 3))).astype(np.uint8)


@pytest.mark.parametrize(
    ("ours", "pillow", "tolerance"),
    [
        (autocontrast, ImageOps.autocontrast, 1),
        (equalize, ImageOps.equalize, 0),
        (lambda x: posterize(x, 5), lambda x: ImageOps.posterize(x, 5), 0),
        (lambda x: solarize(x, 128 / 255), lambda x: ImageOps.solarize(x, 128), 0),
        (lambda x: blend(x, jnp.zeros_like(x), 1.5), lambda x: ImageEnhance.Brightness(x).enhance(1.5), 1),
        (lambda x: blend(x, grey(x), 1.7), lambda x: ImageEnhance.Color(x).enhance(1.7), 1),
        (lambda x: blend(x, grey(x).mean(), 0.4), lambda x: ImageEnhance.Contrast(x).enhance(0.4), 1),
        (lambda x: sharpen(x, 1.9), lambda x: ImageEnhance.Sharpness(x).enhance(1.9), 2),
    ],
)
def test_changes_against_pillow(ours, pillow, tolerance: int, picture: np.ndarray) -> None:
    expected = np.asarray(pillow(Image.fromarray(picture)), int)
    found = np.round(np.asarray(ours(jnp.asarray(picture / 255, jnp.float32))) * 255).astype(int)
    # Pillow rounds to a byte in between.
    assert abs(found - expected).max() <= tolerance


def test_affine_moves_whole_pixels(picture: np.ndarray) -> None:
    image = jnp.asarray(picture / 255, jnp.float32)
    moved = affine(image, jnp.array([[1.0, 0, 2], [0, 1, -3]]))
    np.testing.assert_array_equal(moved[:-2, 3:], image[2:, :-3])
    assert not moved[-2:].any()
    turned = affine(image[:20], jnp.array([[0.0, 1, 0], [-1, 0, 0]]))
    np.testing.assert_array_equal(turned, jnp.rot90(image[:20]))


def test_rand_augment(images: jax.Array) -> None:
    assert len(CHANGES) == 14
    changed = jax.jit(rand_augment, static_argnums=2)(images, KEY, 9)
    assert changed.shape == images.shape
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1
    assert int((changed != images).any((1, 2, 3)).sum()) > 8


def test_everything_together(images: jax.Array) -> None:
    options = {"shift": 2, "flip": True, "rand_augment": 9, "erase": 0.25, "mixup": 0.2, "cutmix": 1.0}
    preprocess = Augmentation(5, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), **options)
    batch = {"image": jnp.round(images * 255).astype(jnp.uint8), "label": jnp.arange(16) % 5}
    trained = jax.jit(preprocess, static_argnums=2)(batch, KEY, True)
    assert trained["label"].shape == (16, 5)
    shown = preprocess.picture(trained["image"])
    assert float(shown.min()) >= -1e-5
    assert float(shown.max()) <= 1 + 1e-5
    plain = preprocess(batch, KEY, False)
    np.testing.assert_allclose(preprocess.picture(plain["image"]), batch["image"] / 255, atol=1e-6)
    np.testing.assert_allclose(plain["image"], (images - jnp.array([0.5, 0.4, 0.3])) / 0.2, atol=1e-5)
    np.testing.assert_array_equal(plain["label"], batch["label"])
