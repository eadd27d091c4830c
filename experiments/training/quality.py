"""The quality of generated images: Fréchet distance, precision and recall, label histogram, in the features of a trained LeNet.

Each figure is accompanied by the same one for real images: the data is split into two halves, and half B takes the place of the
samples. A sampler cannot be expected to come nearer to half A than half B does.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared Fréchet (Wasserstein-2) distance of the normal distributions fitted to two sets of features, [n, size] each.

    |mean difference|^2 + trace(Ca + Cb - 2 (Ca Cb)^(1/2)), Heusel et al. 2017, in float64. The trace of the root of the
    product is that of (Ca^(1/2) Cb Ca^(1/2))^(1/2), which is symmetric, so no complex root is ever taken.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    for name, features in (("a", a), ("b", b)):
        if features.ndim != 2 or len(features) < 2:
            raise ValueError(f"{name}: shape {features.shape} given, [n, size] with n of at least 2 is needed")
    cov_a, cov_b = np.atleast_2d(np.cov(a, rowvar=False)), np.atleast_2d(np.cov(b, rowvar=False))
    values, vectors = np.linalg.eigh(cov_a)
    root_a = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root_a @ cov_b @ root_a), 0)).sum()
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squared = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T
    return np.sqrt(np.maximum(squared, 0))


def precision_recall(real: np.ndarray, generated: np.ndarray, neighbours: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019) of features [n, size].

    Precision is the share of generated images that lie within the distance of some real one to its k-th nearest real
    neighbour; recall the same with the sets exchanged.
    """
    real, generated = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    if min(len(real), len(generated)) <= neighbours:
        raise ValueError(f"neighbours: {neighbours} given, fewer than the {min(len(real), len(generated))} examples are needed")

    def share(inside: np.ndarray, of: np.ndarray) -> float:
        radius = np.sort(_distances(of, of), axis=1)[:, neighbours]  # the nearest one is the point itself
        return float((_distances(inside, of) <= radius).any(1).mean())

    return share(generated, real), share(real, generated)


@dataclasses.dataclass
class Judge:
    """A trained classifier's view of a data set in two halves.

    Attributes:
      forward: images [n, height, width, channels] to (features [n, 84], logits [n, classes]).
      a: features of half A.
      reference: the figures of half B in the place of generated images.
      labels: share of each class in the data.
    """

    forward: Any
    a: np.ndarray
    half: int
    labels: np.ndarray
    reference: dict[str, float]


def measure(judge: Judge, generated: np.ndarray) -> dict[str, float]:
    """The figures of generated images, and as real_... those of real images in their place.

    frechet_distance, precision, recall; label_distance: half the sum of differences between the shares of the classes as the
    judge sees them and as they are in the data; missing_classes: classes with less than a tenth of their share.
    """
    features, logits = judge.forward(generated)
    precision, recall = precision_recall(judge.a, features)
    shares = np.bincount(logits.argmax(1), minlength=len(judge.labels)) / len(logits)
    figures = {
        "frechet_distance": frechet_distance(judge.a, features),
        "precision": precision,
        "recall": recall,
        "label_distance": float(np.abs(shares - judge.labels).sum() / 2),
        "missing_classes": float((shares < judge.labels / 10).sum()),
    }
    return figures | {f"real_{name}": value for name, value in judge.reference.items()}
