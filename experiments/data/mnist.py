"""MNIST and data sets in its format (Fashion-MNIST, KMNIST): four idx files in a folder, gzipped or not.

Source: LeCun, Cortes, Burges 1998, The MNIST database of handwritten digits. 60,000 training and 10,000 test images, 28x28.
"""

from __future__ import annotations

import gzip
import math
import pathlib
import zlib

import numpy as np

from experiments.data.augment import Augmentation, image_data
from experiments.data.base import ArraySource, Dataset

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def read_idx(path: pathlib.Path) -> np.ndarray:
    """The array in an idx file of unsigned bytes.

    Raises:
      ValueError: a wrong magic number, or a file that is cut off, damaged or too long.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: damaged or cut off ({error})") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != 8 or not 1 <= content[3] <= 4:
        raise ValueError(f"{path}: magic number {content[:4].hex()} is not 000008nn, that of an idx file of bytes")
    rank = content[3]
    header = 4 + 4 * rank
    shape = tuple(int(n) for n in np.frombuffer(content[4:header].ljust(4 * rank, b"\0"), ">u4"))
    if len(content) != header + math.prod(shape):
        raise ValueError(f"{path}: {len(content)} bytes, {header + math.prod(shape)} are needed for an array of {shape}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def load(path: str, *, pad: int = 2, shift: int = 2, rand_augment: float = 0, erase: float = 0.0) -> Dataset:
    """Images [28 + 2 pad, 28 + 2 pad, 1], normalized; in training moved by up to `shift` pixels.

    Args:
      path: folder with the four files, `.gz` or not.
      pad: black pixels on each side; 2 makes the 32x32 that LeNet-5 reads.
    """
    parts = {}
    for part, names in FILES.items():
        arrays = []
        for name in names:
            found = [p for p in (pathlib.Path(path) / name, pathlib.Path(path) / f"{name}.gz") if p.exists()]
            if not found:
                raise ValueError(f"{path}: holds neither {name} nor {name}.gz")
            arrays.append(read_idx(found[0]))
        images, labels = arrays
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise ValueError(f"{path}: {names[0]} of shape {images.shape} and {names[1]} of shape {labels.shape} do not match")
        images = np.pad(images, ((0, 0), (pad, pad), (pad, pad)))[..., None]
        parts[part] = ArraySource({"image": images, "label": labels.astype(np.int32)})
    classes = int(max(source.arrays["label"].max() for source in parts.values())) + 1
    # Mean and deviation of MNIST's training images.
    augmentation = Augmentation(classes, (0.1307,), (0.3081,), shift=shift, rand_augment=rand_augment, erase=erase)
    shape = parts["train"].arrays["image"].shape[1:]
    inner = (shape[0] - 2 * pad, shape[1] - 2 * pad)
    digits = list(map(str, range(classes)))
    return image_data("mnist", parts["train"], parts["test"], digits, shape, augmentation, resize_size=inner)
