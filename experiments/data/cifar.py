"""CIFAR-10 and CIFAR-100: 50,000 training and 10,000 test images, 32x32, from the binary or the Python archive.

Source: Krizhevsky 2009, Learning multiple layers of features from tiny images.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Unpack

import numpy as np

from experiments.data.augment import Augmentation, Changes, image_data
from experiments.data.base import ArraySource, Dataset, check_range
from experiments.data.files import Bounded, read_files
from experiments.data.pickled import read_pickle

PIXELS = 3 * 32 * 32
MOST = 2**28  # bytes that an archive may unpack to; each of the four that there are has 187 million


@dataclasses.dataclass(frozen=True)
class Archive:
    """One of the two data sets.

    Attributes:
      train, test: names of the files, with ".bin" in the binary form.
      label_key: of the labels in a file of the Python form.
      label_bytes: before an image in the binary form; the last one is the label.
      mean, deviation: per channel, of the training images.
    """

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_key: bytes
    label_bytes: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


CIFAR10 = Archive(
    "cifar10", tuple(f"data_batch_{number}" for number in range(1, 6)), ("test_batch",), b"labels", 1,
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616),
)  # fmt: skip
CIFAR100 = Archive(  # with the fine labels
    "cifar100", ("train",), ("test",), b"fine_labels", 2, tuple(map(str, range(100))),
    (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762),
)  # fmt: skip


def read_python(content: bytes, label_key: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images [n, 3072] and labels of a file of the Python archive. Raises ValueError for anything else."""
    entries = read_pickle(content)
    missing = [key.decode() for key in (b"data", label_key) if key not in entries]
    if missing:
        raise ValueError(f"no file of the Python archive: it has no {missing[0]}")
    images, labels = entries[b"data"], entries[label_key]
    if not isinstance(images, np.ndarray) or images.ndim != 2 or images.shape[1] != PIXELS:
        found = f"an array of shape {images.shape}" if isinstance(images, np.ndarray) else f"a {type(images).__name__}"
        raise ValueError(f"the images are {found}, an array [n, {PIXELS}] of integers is needed")
    if images.size and not 0 <= images.min() <= images.max() <= 255:
        raise ValueError(f"pixels from {images.min()} to {images.max()}, 0 to 255 are needed")
    if isinstance(labels, list):
        wrong = [label for label in labels if type(label) is not int or not 0 <= label < 2**31]
        if wrong:
            raise ValueError(f"a label is {wrong[0]!r:.60}, a whole number is needed")
        labels = np.array(labels, np.int64)
    if not isinstance(labels, np.ndarray) or labels.shape != images.shape[:1]:
        raise ValueError(f"{len(images)} images with labels that are no list of {len(images)} whole numbers")
    return images.astype(np.uint8, copy=False), labels


def read_binary(content: bytes, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images [n, 3072] and labels of a file of the binary archive; the last of `label_bytes` is the label."""
    record = label_bytes + PIXELS
    if not content or len(content) % record:
        raise ValueError(f"{len(content)} bytes, a multiple of {record} is needed: cut off, or no file of the binary archive")
    rows = np.frombuffer(content, np.uint8).reshape(-1, record)
    return rows[:, label_bytes:], rows[:, label_bytes - 1]


def _contents(path: pathlib.Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """Of the files of these names, in the binary or the Python form, in a folder or an archive that was not unpacked."""
    wanted = {name + suffix for name in names for suffix in (".bin", "")}
    if not path.is_dir():
        return read_files(path, wanted, MOST)
    folders = [path, *(p for p in sorted(path.iterdir()) if p.is_dir() and p.name.startswith("cifar-"))]
    files = (file for folder in folders for file in sorted(folder.iterdir()) if file.name in wanted and file.is_file())
    found = {file.name: file for file in files}
    contents = {}
    for name, file in found.items():
        with Bounded(file, MOST) as stream:
            contents[name] = stream.read(MOST + 1)
    return contents


def read_part(path: str, names: tuple[str, ...], archive: Archive) -> ArraySource:
    """The files `names` of the folder or archive at `path`."""
    files, images, labels = _contents(pathlib.Path(path), names), [], []
    for name in names:
        try:
            if f"{name}.bin" in files:
                part = read_binary(files.pop(f"{name}.bin"), archive.label_bytes)
            elif name in files:
                part = read_python(files.pop(name), archive.label_key)
            else:
                raise ValueError(f"missing, and so is {name}.bin")
            if not len(part[0]):
                raise ValueError("it holds no image")
            if part[1].min() < 0 or part[1].max() >= len(archive.classes):
                raise ValueError(f"labels from {part[1].min()} to {part[1].max()}, 0 to {len(archive.classes) - 1} are needed")
        except ValueError as error:
            raise ValueError(f"{path}: {name}: {error}") from error
        images.append(part[0])
        labels.append(part[1])
    planes = np.concatenate(images).reshape(-1, 3, 32, 32)
    return ArraySource(
        {"image": np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), "label": np.concatenate(labels).astype(np.int32)}
    )


def load(
    archive: Archive,
    path: str,
    *,
    shift: int = 4,
    flip: bool = True,
    **changes: Unpack[Changes],
) -> Dataset:
    """Images [32, 32, 3], normalized; in training moved by up to `shift` pixels and flipped, more with the other options.

    Args:
      path: folder or .tar.gz of the binary or the Python version. The options are those of `Augmentation`.
    """
    check_range("shift", shift, 0, 31)
    augmentation = Augmentation(len(archive.classes), archive.mean, archive.deviation, shift, flip, **changes)
    train, test = (read_part(path, files, archive) for files in (archive.train, archive.test))
    return image_data(archive.name, train, test, archive.classes, (32, 32, 3), augmentation)


cifar10, cifar100 = functools.partial(load, CIFAR10), functools.partial(load, CIFAR100)
