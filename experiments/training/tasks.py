"""The task that a recipe names."""

from __future__ import annotations

from collections.abc import Callable

from experiments.data import Dataset
from experiments.errors import UserError
from experiments.recipes.recipe import Recipe
from experiments.training.classification import ClassificationTask
from experiments.training.gan_task import GanTask
from experiments.training.quality import Judge
from experiments.training.sequence_tasks import LanguageModelTask, TaggingTask
from experiments.training.task import Task

SUPERVISED = {"classification": ClassificationTask, "language_model": LanguageModelTask, "tagging": TaggingTask}

# What the examples of a data set must be.
KINDS = {"classification": "images", "gan": "images", "language_model": "text", "tagging": "tags"}


def make_task(
    recipe: Recipe, dataset: Dataset, steps: int, per_epoch: int, judge: Callable[[Recipe, Dataset], Judge] | None = None
) -> Task:
    """The task of a recipe.

    Args:
      steps, per_epoch: batches in the whole run and in one epoch.
      judge: gives a GAN the trained classifier that its samples are measured with, when they first are.

    Raises:
      UserError: the data are of another kind, or the model or an option is none of this task.
    """
    if dataset.kind != KINDS[recipe.task]:
        raise UserError(f"data: {dataset.name} has {dataset.kind}, {recipe.task} of {recipe.model} needs {KINDS[recipe.task]}")
    if recipe.task == "gan":
        return GanTask(recipe, dataset, steps, per_epoch, judge)
    if options := recipe.options("task"):
        raise UserError(f"task_options: {', '.join(options)} not known; {recipe.task} takes none")
    return SUPERVISED[recipe.task](recipe, dataset, steps, per_epoch)
