"""Photographs in folders, one folder per class, as ImageNet is laid out: PATH/train/CLASS/*.JPEG, PATH/val/CLASS/*.JPEG.

The reader's threads decode the files (Pillow releases the GIL meanwhile); flips and later augmentations run on the device.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Iterator
from typing import Unpack

import numpy as np
from PIL import Image, UnidentifiedImageError

from experiments.data.augment import Augmentation, Changes, image_data
from experiments.data.base import Batch, Dataset, stratified_split

SUFFIXES = (".jpg", ".jpeg", ".png")
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's training images


@dataclasses.dataclass
class ImageFiles:
    """Part of an image folder: decoded when asked for.

    Attributes:
      files, labels: of the same length.
      size: height and width of what `gather` returns.
      skip_corrupt: put another image of the batch in the place of one that cannot be read, and count it, instead of raising.
      skipped: how many were replaced, by file.
    """

    files: list[pathlib.Path]
    labels: np.ndarray
    size: int
    skip_corrupt: bool = False
    skipped: dict[pathlib.Path, int] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.files)

    def gather(self, indices: np.ndarray, rng: np.random.Generator | None) -> Batch:
        """uint8 images [n, size, size, 3] and labels; a random crop of each with `rng`, the middle without.

        Raises:
          ValueError: a file cannot be read; with `skip_corrupt`, if none of the batch can.
        """
        return self._gather(indices, rng)[0]

    def _gather(self, indices: np.ndarray, rng: np.random.Generator | None) -> tuple[Batch, np.ndarray]:
        images, readable = np.empty((len(indices), self.size, self.size, 3), np.uint8), np.ones(len(indices), bool)
        labels = self.labels[indices].copy()
        for row, index in enumerate(indices):
            try:
                images[row] = read_image(self.files[index], self.size, rng)
            except ValueError:
                if not self.skip_corrupt:
                    raise
                readable[row] = False
                self.skipped[self.files[index]] = self.skipped.get(self.files[index], 0) + 1
        if not readable.any():
            raise ValueError(f"{self.files[indices[0]]}: like all other images of its batch, it cannot be read")
        good = np.flatnonzero(readable)
        for row in np.flatnonzero(~readable):
            images[row], labels[row] = images[good[row % len(good)]], labels[good[row % len(good)]]
        return {"image": images, "label": labels}, readable

    def evaluation_batches(self, batch_size: int) -> Iterator[Batch]:
        """Every image once, in order; "weight" is 0 for repeats that fill up the last batch and for unreadable images."""
        for start in range(0, len(self), batch_size):
            indices = np.arange(start, start + batch_size)
            batch, readable = self._gather(np.minimum(indices, len(self) - 1), None)
            yield batch | {"weight": ((indices < len(self)) & readable).astype(np.float32)}


def read_image(path: pathlib.Path, size: int, rng: np.random.Generator | None) -> np.ndarray:
    """[size, size, 3], uint8. With `rng` a random part of 8 to 100 % of the area and aspect 3/4 to 4/3, resized.

    Without, the middle of the image after the shorter side was brought to size * 8 / 7 (256 for 224).

    Raises:
      ValueError: no such file, or one that is cut off, damaged or no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            if rng is None:
                side = min(width, height) * 7 / 8
                left, top, box_width, box_height = (width - side) / 2, (height - side) / 2, side, side
            else:
                left, top, box_width, box_height = random_box(width, height, rng)
            # A JPEG is decoded at a half, a quarter or an eighth of its size where that is still large enough.
            image.draft("RGB", (math.ceil(size * width / box_width), math.ceil(size * height / box_height)))
            zoom_x, zoom_y = image.size[0] / width, image.size[1] / height
            box = (left * zoom_x, top * zoom_y, (left + box_width) * zoom_x, (top + box_height) * zoom_y)
            box = (box[0], box[1], min(box[2], image.size[0]), min(box[3], image.size[1]))
            return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, box=box))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: cannot be read as an image ({error})") from error


def random_box(width: int, height: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """(left, top, width, height) of a random part; after ten that do not fit, the largest in the middle within the aspects."""
    for _ in range(10):
        area = rng.uniform(0.08, 1.0) * width * height
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        box_width, box_height = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if box_width <= width and box_height <= height:
            return rng.uniform(0, width - box_width), rng.uniform(0, height - box_height), box_width, box_height
    box_width, box_height = min(width, height * 4 / 3), min(height, width * 4 / 3)
    return (width - box_width) / 2, (height - box_height) / 2, box_width, box_height


def list_images(
    folder: pathlib.Path, classes: tuple[str, ...] | None = None
) -> tuple[list[pathlib.Path], list[int], tuple[str, ...]]:
    """Files, labels and class names of a folder of class folders.

    Raises:
      ValueError: no class folders, a class folder without images, or one that `classes` does not name.
    """
    names = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if not names:
        raise ValueError(f"{folder}: holds no class folders")
    unknown = sorted(set(names) - set(classes or names))
    if unknown:
        raise ValueError(f"{folder / unknown[0]}: a class that the training images do not have")
    classes = classes or names
    files, labels = [], []
    for name in names:
        found = sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in SUFFIXES)
        if not found:
            raise ValueError(f"{folder / name}: a class folder with no images ({', '.join(SUFFIXES)})")
        files += found
        labels += [classes.index(name)] * len(found)
    return files, labels, classes


def load(
    path: str,
    *,
    size: int = 224,
    skip_corrupt: bool = False,
    flip: bool = True,
    **changes: Unpack[Changes],
) -> Dataset:
    """Images [size, size, 3], normalized as ImageNet; random resized crops and flips in training.

    Args:
      path: folder with train/ and val/ (or test/), or of class folders, of which a stratified fifth is then the test data.
      skip_corrupt: leave out images that cannot be read, and count them, instead of stopping.
    """
    root = pathlib.Path(path)
    if not root.is_dir():
        raise ValueError(f"{path}: no such folder")
    test_folder = next((root / name for name in ("val", "test") if (root / name).is_dir()), None)
    if (root / "train").is_dir() and test_folder is not None:
        files, labels, classes = list_images(root / "train")
        test_files, test_labels, _ = list_images(test_folder, classes)
    else:
        every, every_label, classes = list_images(root)
        train_rows, test_rows = stratified_split(every_label, 5, seed=0)
        files, labels = [every[i] for i in train_rows], [every_label[i] for i in train_rows]
        test_files, test_labels = [every[i] for i in test_rows], [every_label[i] for i in test_rows]
    part = lambda names, numbers: ImageFiles(names, np.array(numbers, np.int32), size, skip_corrupt)
    augmentation = Augmentation(len(classes), MEAN, DEVIATION, 0, flip, **changes)
    train, test = part(files, labels), part(test_files, test_labels)
    return image_data("imagefolder", train, test, classes, (size, size, 3), augmentation, resize_size=round(size * 8 / 7))
