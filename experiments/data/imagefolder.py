"""Photographs in folders, one folder per class, as ImageNet is laid out: PATH/train/CLASS/*.JPEG, PATH/val/CLASS/*.JPEG.

Links to folders are followed. What begins with a dot is left out, and what systems leave behind (LITTER).

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
from experiments.data.base import Batch, Dataset, check_range, stratified_split
from zoo.images import as_rgb, open_image
from zoo.preprocessing import Preprocessing, imagenet

SUFFIXES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"
)  # fmt: skip
LITTER = ("__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")
# What the folders of the parts are called, in any case; of the parts to test with, the first that is there.
TRAINING = ("train", "training")
HELD_OUT = ("val", "valid", "validation", "dev", "test", "testing")
_ORIENTATION = 0x0112  # in EXIF data
LARGEST_SIZE = 8192


def square(size: int) -> Preprocessing:
    """ImageNet's way at another size: the middle of an image whose shorter side was resized to 8/7 of it (256 for 224)."""
    return dataclasses.replace(imagenet(round(size * 8 / 7)), crop_size=(size, size))


@dataclasses.dataclass
class ImageFiles:
    """Part of an image folder: decoded when asked for.

    Attributes:
      files, labels: of the same length.
      look: how a test image is resized, and the middle that is cut out; training cuts out a random part of the same size.
      skip_corrupt: put another image of the batch in the place of one that cannot be read, and count it, instead of raising.
      skipped: how many were replaced, by file.
    """

    files: list[pathlib.Path]
    labels: np.ndarray
    look: Preprocessing
    skip_corrupt: bool = False
    skipped: dict[pathlib.Path, int] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.files)

    def gather(self, indices: np.ndarray, rng: np.random.Generator | None) -> Batch:
        """uint8 images [n, height, width, 3] and labels; a random crop of each with `rng`, the middle without.

        Raises:
          ValueError: a file cannot be read; with `skip_corrupt`, if none of the batch can.
        """
        return self.gather_part(indices, rng, slice(None))

    def gather_part(self, indices: np.ndarray, rng: np.random.Generator | None, rows: slice) -> Batch:
        """These rows of what `gather` returns; no other image is read."""
        each = rng.spawn(len(indices))[rows] if rng is not None else None  # so that no crop depends on the images before it
        return self._gather(indices[rows], each)[0]

    def _gather(self, indices: np.ndarray, rngs: list[np.random.Generator] | None) -> tuple[Batch, np.ndarray]:
        shape = (len(indices), *self.look.crop_size, 3)
        images, readable = np.empty(shape, np.uint8), np.ones(len(indices), bool)
        labels = self.labels[indices].copy()
        for row, index in enumerate(indices):
            try:
                images[row] = read_image(self.files[index], self.look, rngs[row] if rngs else None)
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


def read_image(path: pathlib.Path, look: Preprocessing, rng: np.random.Generator | None) -> np.ndarray:
    """[*look.crop_size, 3], uint8, of the first picture where a file holds several.

    With `rng` a random part of 8 to 100 % of the area and aspect 3/4 to 4/3, resized. Without, the middle of the resized image.

    Raises:
      ValueError: no such file, or one that is cut off, damaged or no image.
    """
    try:
        with open_image(path) as image:
            # A TIFF's size is that of the picture as it will be turned.
            lying = image.format != "TIFF" and image.getexif().get(_ORIENTATION, 1) >= 5  # its width will be its height
            width, height = image.size[::-1] if lying else image.size
            left, top, box_width, box_height = (
                middle_box(width, height, look) if rng is None else random_box(width, height, rng)
            )
            rows, columns = look.crop_size
            # A JPEG is decoded at a half, a quarter or an eighth of its size where that is still large enough.
            wanted = math.ceil(columns * width / box_width), math.ceil(rows * height / box_height)
            image.draft("RGB", wanted[::-1] if lying else wanted)
            picture = as_rgb(image)
            zoom_x, zoom_y = picture.width / width, picture.height / height
            box = (left * zoom_x, top * zoom_y, (left + box_width) * zoom_x, (top + box_height) * zoom_y)
            box = (box[0], box[1], min(box[2], picture.width), min(box[3], picture.height))
            method = Image.Resampling[look.interpolation.upper()]
            return np.asarray(picture.resize((columns, rows), method, box=box))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: cannot be read as an image ({error})") from error


def middle_box(width: int, height: int, look: Preprocessing) -> tuple[float, float, float, float]:
    """(left, top, width, height) of what is cut out of the middle, in pixels of the image before it is resized."""
    resize, (rows, columns) = look.resize_size, look.crop_size
    if isinstance(resize, tuple):
        box_width, box_height = width * columns / resize[1], height * rows / resize[0]
    else:
        box_width, box_height = min(width, height) * columns / resize, min(width, height) * rows / resize
    box_width, box_height = min(box_width, width), min(box_height, height)
    return (width - box_width) / 2, (height - box_height) / 2, box_width, box_height


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


def folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folders in a folder, in order, without hidden ones and litter."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not _left_out(p.name))


def images_below(folder: pathlib.Path) -> list[pathlib.Path]:
    """The image files of a class, in order; a folder that is linked to twice, or from within itself, is read once."""
    real = folder.resolve()
    seen = {real, *real.parents}  # a link to what lies above would bring the other classes in
    found, waiting = [], [folder]
    while waiting:
        for path in waiting.pop().iterdir():
            if _left_out(path.name):
                continue
            if not path.is_dir():
                found += [path] if path.suffix.lower() in SUFFIXES else []
            elif path.resolve() not in seen:
                seen.add(path.resolve())
                waiting.append(path)
    return sorted(found)


def _left_out(name: str) -> bool:
    return name.startswith(".") or name in LITTER


def list_images(
    folder: pathlib.Path, classes: tuple[str, ...] | None = None
) -> tuple[list[pathlib.Path], list[int], tuple[str, ...]]:
    """Files, labels and class names of a folder of class folders.

    Raises:
      ValueError: no class folders, a class folder without images, or one that `classes` does not name.
    """
    names = tuple(p.name for p in folders(folder))
    if not names:
        raise ValueError(f"{folder}: holds no class folders")
    unknown = sorted(set(names) - set(classes or names))
    if unknown:
        raise ValueError(f"{folder / unknown[0]}: a class that the training images do not have")
    classes = classes or names
    files, labels = [], []
    for name in names:
        found = images_below(folder / name)
        if not found:
            raise ValueError(f"{folder / name}: a class folder with no images ({', '.join(SUFFIXES)})")
        files += found
        labels += [classes.index(name)] * len(found)
    return files, labels, classes


def parts(root: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path | None]:
    """The folder of classes to train with and the one to test with; None where a part of the first is to be held out.

    A folder is a part by its name, in any case, if it holds no images itself: a class may be called train too.

    Raises:
      ValueError: several folders to train with, a folder to test with alone, or one that is neither beside them.
    """
    by_name: dict[str, pathlib.Path] = {}
    for path in folders(root):
        name = path.name.lower()
        if name in (*TRAINING, *HELD_OUT) and not any(_is_image(file) for file in path.iterdir()):
            if name in by_name or (name in TRAINING and by_name.keys() & set(TRAINING)):
                raise ValueError(f"{root}: holds {by_name.get(name, path).name} and {path.name}, one of them is needed")
            by_name[name] = path
    if not by_name:
        return root, None
    train = next((by_name[name] for name in TRAINING if name in by_name), None)
    if train is None:
        raise ValueError(f"{root}: holds {', '.join(p.name for p in by_name.values())} and no train")
    others = [path.name for path in folders(root) if path not in by_name.values()]
    if others and len(by_name) == 1:
        raise ValueError(f"{root}: {others[0]} beside {train.name}, a folder of class folders is needed: {', '.join(HELD_OUT)}")
    return train, next((by_name[name] for name in HELD_OUT if name in by_name), None)


def _is_image(path: pathlib.Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not _left_out(path.name) and path.is_file()


def load(
    path: str,
    *,
    size: int | None = None,
    skip_corrupt: bool = False,
    flip: bool = True,
    preprocessing: Preprocessing | None = None,
    **changes: Unpack[Changes],
) -> Dataset:
    """Images [height, width, 3], made ready as `preprocessing` says; random resized crops and flips in training.

    Args:
      path: folder with train/ and val/ (valid, validation, dev or test; any case), or of class folders, of which a stratified
        fifth is then the test data; a single image of a class is trained with.
      size: height and width in place of those of `preprocessing`, in the same proportion to what it resizes to.
      skip_corrupt: leave out images that cannot be read, and count them, instead of stopping.
      preprocessing: sizes, interpolation, mean and deviation; None for 224 out of 256, and ImageNet's mean and deviation.

    Raises:
      ValueError: a folder is missing, empty or ambiguous, or every class has a single image, so that none is left to test with.
    """
    root = pathlib.Path(path)
    if not root.is_dir():
        raise ValueError(f"{path}: no such folder")
    train_folder, test_folder = parts(root)
    files, labels, classes = list_images(train_folder)
    if test_folder is not None:
        test_files, test_labels, _ = list_images(test_folder, classes)
    else:
        every, every_label = files, labels
        train_rows, test_rows = stratified_split(every_label, 5, seed=0)
        if not len(test_rows):
            raise ValueError(f"{train_folder}: a single image of each class, which leaves none to test with")
        files, labels = [every[i] for i in train_rows], [every_label[i] for i in train_rows]
        test_files, test_labels = [every[i] for i in test_rows], [every_label[i] for i in test_rows]
    look = preprocessing or square(224)
    if size is not None:
        check_range("size", size, 1, LARGEST_SIZE)
        look = _of_size(look, size)
    part = lambda names, numbers: ImageFiles(names, np.array(numbers, np.int32), look, skip_corrupt)
    low, high = look.value_range
    # In terms of values from 0 to 1, and for three channels.
    mean = tuple((m - low) / (high - low) for m in look.mean) * (3 // look.channels)
    deviation = tuple(d / (high - low) for d in look.std) * (3 // look.channels)
    augmentation = Augmentation(len(classes), mean, deviation, 0, flip, **changes)
    train, test = part(files, labels), part(test_files, test_labels)
    made = image_data("imagefolder", train, test, classes, (*look.crop_size, 3), augmentation, resize_size=look.resize_size)
    look = dataclasses.replace(look, mean=mean, std=deviation, value_range=(0.0, 1.0))
    return dataclasses.replace(made, preprocessing=look, adjustable=True)


def _of_size(look: Preprocessing, size: int) -> Preprocessing:
    """The same at another size of the crop."""
    by = size / min(look.crop_size)
    resize = look.resize_size
    resized = tuple(round(n * by) for n in resize) if isinstance(resize, tuple) else round(resize * by)
    return dataclasses.replace(look, resize_size=resized, crop_size=(size, size))  # type: ignore[arg-type]
