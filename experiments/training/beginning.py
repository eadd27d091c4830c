"""What stands in a workdir when a run begins, and what is written there before the first step."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

from experiments.errors import UserError, explain
from experiments.measuring.result import write_json
from experiments.recipes.recipe import Recipe
from experiments.training import folder, length, run_files
from zoo.weights import runs


def earlier(recipe: Recipe, workdir: pathlib.Path) -> tuple[dict[str, Any] | None, ...]:
    """The settings of an earlier part of this run, its summary if there is nothing left to do, and how it makes images ready.

    Raises:
      UserError: the folder holds another run, files that are no run's, or damaged ones.
    """
    folder.check_own(workdir)
    old = run_files.earlier_part(workdir, recipe.settings()) if recipe.resume else None
    if old is None:
        return None, None, None
    look = run_files.read_preprocessing(workdir)
    complete = all((workdir / name).exists() for name in ("summary.json", runs.MODEL, "curves.png"))
    summary = run_files.read_json(workdir / "summary.json") if complete and not length.is_other(old, recipe) else None
    return old, summary, look.as_dict() if look else None


def prepare(workdir: pathlib.Path, say: Callable[[str], None], *, begins: bool, config: dict[str, Any] | None) -> None:
    """Set aside what a run that begins would replace, and write down what it is where that changes.

    Raises:
      UserError: the folder cannot be written.
    """
    try:
        if begins and folder.set_aside(workdir):
            say(f"what was in {workdir}/ is in {workdir}/{folder.ASIDE}/ until the first checkpoint")
        if config:
            (workdir / "summary.json").unlink(missing_ok=True)  # first: a run with a summary counts as finished
            write_json(workdir / "config.json", config, indent=2)
    except OSError as error:
        raise UserError(f"workdir: {explain(error)}") from error
