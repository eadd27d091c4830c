"""Loads a finished or interrupted run, for evaluation and generation."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from experiments import data
from experiments.errors import UserError, explain
from experiments.measuring.names import printable
from experiments.recipes.recipe import Recipe
from experiments.training import mesh as meshes
from experiments.training import recipe_data, run_files
from experiments.training.checkpoints import Checkpoints
from experiments.training.quality import Judge
from experiments.training.stepper import Stepper
from experiments.training.tasks import make_task
from zoo.preprocessing import Preprocessing

# What the flag of that name says.
TRUST = "run the code that the workdir names as its model or data, MODULE:FUNCTION"


class Run(NamedTuple):
    """`task.model(stepper.state)` is the network; `step` says how far it was trained."""

    recipe: Recipe
    dataset: data.Dataset
    task: Any
    stepper: Stepper
    step: int


def build(
    recipe: Recipe,
    judge: Callable[[Recipe, data.Dataset], Judge] | None = None,
    preprocessing: Preprocessing | None = None,
) -> Run:
    """The recipe's task, with a GAN's judge, and its state before the first step; the values of its weights are not read.

    Args:
      preprocessing: with which the run was begun, if it was.
    """
    dataset = recipe_data.load(recipe, preprocessing)
    recipe = dataclasses.replace(recipe, batch_size=recipe_data.fitting_batch_size(recipe, dataset))
    batches = dataset.training_batches(recipe.batch_size, recipe.seed)
    task = make_task(recipe, dataset, recipe.length(batches.per_epoch), batches.per_epoch, judge)
    return Run(recipe, dataset, task, Stepper(task, recipe, meshes.make_mesh(recipe.mesh)), 0)


def recipe_of(workdir: pathlib.Path) -> Recipe:
    """The recipe of the run in `workdir`, to be run on the devices that are here.

    Raises:
      UserError: there is no run, one of another version, or its settings are damaged.
    """
    settings = run_files.read_config(workdir)
    if settings is None:
        raise UserError(f"workdir: {workdir} holds no run (no config.json)")
    unknown = set(settings) - {field.name for field in dataclasses.fields(Recipe)}
    if unknown:
        raise UserError(f"workdir: {workdir} was written by another version (it has {', '.join(sorted(unknown))})")
    try:
        return Recipe(**settings | {"mesh": "data=1", "workdir": str(workdir)})
    except (UserError, TypeError) as error:
        raise UserError(f"workdir: {workdir / 'config.json'} is damaged ({explain(error)})") from error


def load_run(
    workdir: pathlib.Path,
    judge: Callable[[Recipe, data.Dataset], Judge] | None = None,
    checkpoint: str | int = "newest",
    *,
    trust: bool = False,
) -> Run:
    """A checkpoint of the run in `workdir`.

    Args:
      checkpoint: "newest", which passes over damaged ones; "best", by the figure of --best; or a step.
      trust: import and call what config.json names as MODULE:FUNCTION. A stranger's could name any function that is installed.

    Raises:
      UserError: there is no run, no such checkpoint, or none that can be read; it names code and is not trusted.
    """
    recipe = recipe_of(workdir)
    # By their colons: to look for the module would import its package already.
    code = [f"model {recipe.model}"] if ":" in recipe.model else []
    code += [f"data {recipe.data}"] if ":" in recipe.data and recipe.data.partition(":")[0] not in data.DATA else []
    if code and not trust:
        raise UserError(f"workdir: {workdir} names code to run ({printable(', '.join(code))}); --trust runs it")
    run = build(recipe, judge, run_files.read_preprocessing(workdir))
    with contextlib.closing(Checkpoints(workdir / run_files.CHECKPOINTS, reading=True)) as checkpoints:
        only = None if checkpoint == "newest" else checkpoints.step_of(checkpoint)
        found = checkpoints.restore(run.stepper.state, run.stepper.shardings, discard=False, only=only)
    if found is None:
        raise UserError(f"workdir: {workdir} holds no checkpoint yet")
    run.stepper.state, extra, _ = found
    return run._replace(step=extra["step"])
