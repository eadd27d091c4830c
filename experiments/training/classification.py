"""Classification: one class per image, or other example."""

from __future__ import annotations

import jax
from flax import nnx

import kernels
from experiments.data import Dataset
from experiments.errors import UserError
from experiments.losses import cross_entropy
from experiments.recipes.recipe import Recipe
from experiments.training.task import Metrics, SupervisedTask


class ClassificationTask(SupervisedTask):
    """One class per example; softmax cross-entropy, with label smoothing and auxiliary classifiers where there are such."""

    def __init__(self, recipe: Recipe, dataset: Dataset, steps: int, per_epoch: int):
        if len(dataset.classes) < 2:
            raise UserError(f"data: {dataset.name} has {len(dataset.classes)} class, classification needs two or more")
        super().__init__(recipe, dataset, steps, per_epoch)

    def loss(self, model: nnx.Module, batch: dict[str, jax.Array]) -> tuple[jax.Array, Metrics]:
        labels = batch["label"]
        value, logits = cross_entropy(model(batch["image"]), labels, self.recipe.label_smoothing)  # type: ignore[operator]
        target = labels if labels.ndim == 1 else labels.argmax(-1)
        return value, {"accuracy": (logits.argmax(-1) == target).mean()}

    def score(self, model: nnx.Module, batch: dict[str, jax.Array]) -> Metrics:
        logits = model(batch["image"])  # type: ignore[operator]
        weight = batch["weight"]
        loss = kernels.softmax_cross_entropy(logits, batch["label"])
        right = logits.argmax(-1) == batch["label"]
        return {"loss": (loss * weight).sum(), "accuracy": (right * weight).sum(), "count": weight.sum()}
