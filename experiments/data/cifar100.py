"""CIFAR-100: as CIFAR-10, with a hundred fine classes. Source: Krizhevsky 2009."""

from __future__ import annotations

from experiments.data.augment import Augmentation, image_data
from experiments.data.base import Dataset
from experiments.data.cifar10 import read_part

MEAN, DEVIATION = (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)  # of the training images


def load(
    path: str | None = None,
    *,
    shift: int = 4,
    flip: bool = True,
    rand_augment: float = 0,
    erase: float = 0.0,
    mixup: float = 0.0,
    cutmix: float = 0.0,
) -> Dataset:
    """Images [32, 32, 3] with their fine labels; path and options as of cifar10."""
    if path is None:
        raise ValueError("cifar100 needs its folder or archive: cifar100:PATH")
    augmentation = Augmentation(100, MEAN, DEVIATION, shift, flip, rand_augment, erase, mixup, cutmix)
    train, test = (read_part(path, (part,), b"fine_labels", 2, 100) for part in ("train", "test"))
    return image_data("cifar100", train, test, list(map(str, range(100))), (32, 32, 3), augmentation)
