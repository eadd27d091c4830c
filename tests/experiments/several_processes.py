"""One of several processes that train, one after the other, what test_mesh.py compares; started by it."""

from __future__ import annotations

import io
import json
import sys

from rich.console import Console

from experiments import recipes
from experiments.training import processes
from experiments.training.judge import judge_of
from experiments.training.loop import train


def main(runs: str, coordinator: str, count: str, index: str) -> None:
    if int(count) > 1:
        processes.join(coordinator, int(count), int(index))
    with processes.together():
        for settings in json.loads(runs):
            recipe = recipes.find(settings.pop("model"), None)
            train(recipes.Recipe(**recipe.settings() | settings), Console(file=io.StringIO()), judge_of)


main(*sys.argv[1:])
