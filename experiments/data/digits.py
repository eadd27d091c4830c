"""scikit-learn's handwritten digits: 1,797 images of 8x8 pixels, part of the package, no download.

Source: Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits (the test part), UCI machine learning repository.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import pathlib
from typing import Any

import jax
import numpy as np

from experiments.data.augment import random_shift
from experiments.data.base import ArraySource, Dataset, check_range, stratified_split
from experiments.errors import UserError
from zoo.preprocessing import Preprocessing

# The test fifth is the same for every run and every seed.
SPLIT_SEED = 0
LARGEST = 256  # height and width at which all images together take half a GB


def enlarge(images: np.ndarray, size: int) -> np.ndarray:
    """Bilinear enlargement of [n, height, width] to [n, size, size], pixel centres aligned."""

    def weights(old: int) -> np.ndarray:
        centres = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
        return np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(old))).astype(np.float32)

    return np.einsum("Hh,nhw,Ww->nHW", weights(images.shape[1]), images, weights(images.shape[2]), optimize=True)


def load(*, size: int = 32, shift: int = 3) -> Dataset:
    """The digits enlarged to `size` x `size` x 1, values from -1 (paper) to 1 (ink).

    A stratified fifth, 364 images, is the test data. In training each image is moved by up to `shift` pixels.
    """
    check_range("size", size, 8, LARGEST)
    check_range("shift", shift, 0, size - 1)
    pixels, labels = _read()
    images = enlarge(pixels / 8 - 1, size)[..., None]
    train, test = stratified_split(labels, 5, SPLIT_SEED)
    part = lambda indices: ArraySource({"image": images[indices], "label": labels[indices]})
    return Dataset(
        name="digits",
        train=part(train),
        test=part(test),
        classes=tuple("0123456789"),
        input_shape=(size, size, 1),
        preprocess=functools.partial(_preprocess, shift=shift),
        # In a picture ink is dark.
        preprocessing=Preprocessing((size, size), (size, size), mean=(0.0,), std=(1.0,), value_range=(1.0, -1.0)),
    )


def _read() -> tuple[np.ndarray, np.ndarray]:
    """float32 images [1797, 8, 8], values 0 to 16, and int32 labels: those of `sklearn.datasets.load_digits`, from its file. To
    import scikit-learn takes seconds, since it imports SciPy's statistics."""
    found = importlib.util.find_spec("sklearn")
    if found is None:
        raise UserError("data: digits needs scikit-learn, which is not installed")
    assert found.origin is not None  # a package has an __init__.py
    rows = np.loadtxt(pathlib.Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz", np.float32, delimiter=",")
    return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int32)


def _preprocess(batch: dict, key: jax.Array, train: bool, shift: int) -> dict:
    return batch | {"image": random_shift(batch["image"], key, shift, "edge")} if train and shift else batch


def load_rows(*, size: int = 32, shift: int = 3) -> Dataset:
    """The digits as sequences [size, size]: an image is read row by row, from top to bottom."""
    images = load(size=size, shift=shift)

    def preprocess(batch: dict[str, Any], key: jax.Array, train: bool) -> dict[str, Any]:
        batch = images.preprocess(batch, key, train)
        return batch | {"image": batch["image"][..., 0]}

    return dataclasses.replace(images, name="digitrows", input_shape=(size, size), preprocess=preprocess, preprocessing=None)
