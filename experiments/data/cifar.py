"""CIFAR-10 and CIFAR-100: 50,000 training and 10,000 test images, 32x32, from the binary or the Python archive.

Source: Krizhevsky 2009, Learning multiple layers of features from tiny images.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import pathlib
import pickle
import tarfile
import zlib
from typing import Any, Unpack

import numpy as np

from experiments.data.augment import Augmentation, Changes, image_data
from experiments.data.base import ArraySource, Dataset

PIXELS = 3 * 32 * 32


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


class _ArraysOnly(pickle.Unpickler):
    """Admits what NumPy needs to rebuild an array, and nothing that runs other code."""

    _ADMITTED = frozenset(
        (module, name)
        for module in ("numpy.core.multiarray", "numpy._core.multiarray", "numpy")
        for name in ("_reconstruct", "ndarray", "dtype")
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):  # how Python 2's byte strings come through protocol 2
            return lambda text, encoding: text.encode("latin1")
        if (module, name) not in self._ADMITTED:
            raise ValueError(f"it asks for {module}.{name}, which no data set has need of; nothing was run")
        if name == "_reconstruct":
            return np.zeros(0).__reduce__()[0]  # its module has another name from NumPy 2 on
        return getattr(np, name)


def read_python(content: bytes, label_key: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images [n, 3072] and labels of a file of the Python archive. Raises ValueError for anything else."""
    try:
        entries = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
        images, labels = np.asarray(entries[b"data"], np.uint8), np.asarray(entries[label_key])
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"damaged, or no file of the Python archive ({type(error).__name__}: {error})") from error
    if images.ndim != 2 or images.shape[1] != PIXELS or labels.shape != images.shape[:1]:
        raise ValueError(f"images of shape {images.shape} and labels of shape {labels.shape} are not [n, {PIXELS}] and [n]")
    return images, labels


def read_binary(content: bytes, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images [n, 3072] and labels of a file of the binary archive; the last of `label_bytes` is the label."""
    record = label_bytes + PIXELS
    if not content or len(content) % record:
        raise ValueError(f"{len(content)} bytes, a multiple of {record} is needed: cut off, or no file of the binary archive")
    rows = np.frombuffer(content, np.uint8).reshape(-1, record)
    return rows[:, label_bytes:], rows[:, label_bytes - 1]


def _files(path: pathlib.Path) -> dict[str, bytes]:
    """Contents by file name, of a folder or of an archive that was not unpacked."""
    if path.is_dir():
        folders = [path, *(p for p in sorted(path.iterdir()) if p.is_dir() and p.name.startswith("cifar-"))]
        return {
            p.name: p.read_bytes() for folder in folders for p in sorted(folder.iterdir()) if p.is_file() and p.suffix != ".gz"
        }
    try:
        with tarfile.open(path) as archive:
            members = [m for m in archive if m.isfile()]
            return {pathlib.PurePosixPath(m.name).name: archive.extractfile(m).read() for m in members}  # type: ignore[union-attr]
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: damaged or cut off ({error})") from error


def read_part(path: str, names: tuple[str, ...], archive: Archive) -> ArraySource:
    """The files `names` of the folder or archive at `path`."""
    files, images, labels = _files(pathlib.Path(path)), [], []
    for name in names:
        try:
            if f"{name}.bin" in files:
                part = read_binary(files[f"{name}.bin"], archive.label_bytes)
            elif name in files:
                part = read_python(files[name], archive.label_key)
            else:
                raise ValueError(f"missing, and so is {name}.bin")
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
    augmentation = Augmentation(len(archive.classes), archive.mean, archive.deviation, shift, flip, **changes)
    train, test = (read_part(path, files, archive) for files in (archive.train, archive.test))
    return image_data(archive.name, train, test, archive.classes, (32, 32, 3), augmentation)


cifar10, cifar100 = functools.partial(load, CIFAR10), functools.partial(load, CIFAR100)
