"""One of several processes that train, one after the other, what test_mesh.py compares; started by it."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

from experiments import recipes
from experiments.training import processes, task
from experiments.training.judge import judge_of
from experiments.training.loop import train


def in_float64(wanted: bool, build: Any = task.build_model) -> None:
    """Train in float64, parameters too, which the trainer has no flag for."""
    jax.config.update("jax_enable_x64", wanted)
    double = {"dtype": jnp.float64, "param_dtype": jnp.float64} if wanted else {}
    task.build_model = lambda recipe, dataset, **changes: build(recipe, dataset, **double, **changes)


def main(runs: str, coordinator: str, count: str, index: str) -> None:
    if int(count) > 1:
        processes.join(coordinator, int(count), int(index))
    with processes.together():
        for settings in json.loads(runs):
            in_float64(settings.pop("float64", False))
            recipe = recipes.find(settings.pop("model"), None)
            train(recipes.Recipe(**recipe.settings() | settings), Console(file=io.StringIO()), judge_of)


main(*sys.argv[1:])
