"""The handwritten digits as sequences: an image is read row by row, from top to bottom."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from experiments.data import digits
from experiments.data.base import Dataset


def load(path: str | None = None, *, size: int = 32, shift: int = 3) -> Dataset:
    """`digits` as [size, size]: as many steps as the image has rows, each with the values of one row."""
    images = digits.load(path, size=size, shift=shift)

    def preprocess(batch: dict[str, Any], key: jax.Array, train: bool) -> dict[str, Any]:
        batch = images.preprocess(batch, key, train)
        return batch | {"image": batch["image"][..., 0]}

    return dataclasses.replace(images, name="digitrows", input_shape=(size, size), preprocess=preprocess)
