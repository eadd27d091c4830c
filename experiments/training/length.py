"""A run that is made longer, or shorter, than it was begun: what that does, in words."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from experiments.errors import UserError
from experiments.recipes.recipe import Recipe
from experiments.training import run_files

NAMES = ("epochs", "steps", "early_stop")


def is_other(old: dict[str, Any], recipe: Recipe) -> bool:
    """Whether a run that was begun with the settings `old` was given another length."""
    return any(old.get(name) != getattr(recipe, name) for name in NAMES)


def check(workdir: pathlib.Path, recipe: Recipe, steps: int) -> None:
    """Raise UserError if the run in `workdir` is beyond a length of `steps` already."""
    done = run_files.newest_checkpoint(workdir)
    if done > steps:
        flag = "steps" if recipe.steps else "epochs"
        raise UserError(
            f"{flag}: {getattr(recipe, flag):g} given ({steps} steps), the run in {workdir} has done {done} steps; "
            "give as many or more, or --no-resume to train anew"
        )


def describe(old: dict[str, Any], recipe: Recipe, steps: int, per_epoch: int, rate: Callable[[], float]) -> str:
    """One line on what the other length changes; empty where it is the same number of steps.

    Args:
      rate: the learning rate at the next step.
    """
    before = dataclasses.replace(recipe, epochs=old["epochs"], steps=old["steps"]).length(per_epoch)
    if before == steps:
        return ""
    line = f"made {'longer' if steps > before else 'shorter'}: {steps} steps, {before} before"
    if recipe.schedule == "constant":
        return line
    return f"{line}; the {recipe.schedule} schedule now ends at step {steps}: the learning rate continues at {rate():.3g}"
