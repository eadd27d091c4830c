"""MNIST and data sets in its format (Fashion-MNIST, KMNIST): four idx files in a folder, gzipped or not.

Source: LeCun, Cortes, Burges 1998, The MNIST database of handwritten digits. 60,000 training and 10,000 test images, 28x28.
"""

from __future__ import annotations

import math
import pathlib

import numpy as np

from experiments.data.augment import Augmentation, image_data
from experiments.data.base import ArraySource, Dataset, check_range
from experiments.data.files import Bounded

MOST = 6 * 10**8  # bytes of a file, unpacked; the largest in this format, EMNIST's, has 547 million
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def read_idx(path: pathlib.Path) -> np.ndarray:
    """The array in an idx file of unsigned bytes.

    Raises:
      ValueError: a wrong magic number, or a file that is cut off, damaged, too long or too large.
    """
    with Bounded(path, MOST) as stream:
        magic = stream.read(4)
        if magic[:3] != b"\0\0\x08" or len(magic) < 4 or not 1 <= magic[3] <= 4:
            raise ValueError(f"{path}: magic number {magic.hex()} is not 000008nn, that of an idx file of bytes")
        sizes = stream.read(4 * magic[3])
        shape = tuple(int(n) for n in np.frombuffer(sizes.ljust(4 * magic[3], b"\0"), ">u4"))
        needed = math.prod(shape)
        if needed > MOST:
            raise ValueError(f"{path}: says that it holds an array of {shape}; at most {MOST:,} bytes are read")
        content = stream.read(needed + 1)
    if len(content) != needed or len(sizes) < 4 * magic[3]:
        found = "more" if len(content) > needed else len(content)
        raise ValueError(f"{path}: {found} bytes, {needed} are needed for an array of {shape}")
    if not needed:
        raise ValueError(f"{path}: an array of {shape} holds nothing")
    return np.frombuffer(content, np.uint8).reshape(shape)


def load(path: str, *, pad: int = 2, shift: int = 2, rand_augment: float = 0, erase: float = 0.0) -> Dataset:
    """Images [28 + 2 pad, 28 + 2 pad, 1], normalized; in training moved by up to `shift` pixels.

    Args:
      path: folder with the four files, `.gz` or not.
      pad: black pixels on each side; 2 makes the 32x32 that LeNet-5 reads.
    """
    check_range("pad", pad, 0, 128)
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
    check_range("shift", shift, 0, min(shape[:2]) - 1)
    inner = (shape[0] - 2 * pad, shape[1] - 2 * pad)
    digits = list(map(str, range(classes)))
    return image_data("mnist", parts["train"], parts["test"], digits, shape, augmentation, resize_size=inner)
