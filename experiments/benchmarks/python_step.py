"""How much of a training step is Python's, with LeNet-5's recipe: python -m experiments.benchmarks.python_step.

Writes experiments/results/cpu/python-step.json. Aim: 0.15 ms.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import tempfile
import time
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from rich.console import Console

from experiments.measuring import result
from experiments.recipes import find
from experiments.recipes.recipe import Recipe
from experiments.training import loop
from experiments.training.stepper import Stepper
from experiments.training.task import Task


class _EnoughError(Exception):
    """The steps that are measured were made."""


def python_time_per_step(steps: int = 4000, warm: int = 200) -> float:
    """Seconds of the main thread's processor time per step of `train` on the digits: everything that the loop does between
    evaluations (reader, dispatch, metrics, a log every `(steps + warm) // 200` steps), around a step that computes nothing."""
    marks: list[float] = []  # two of them: to ask for the time costs as much as a third of what is measured
    calls = itertools.count(1)

    class Idle(Stepper):
        def __init__(self, task: Task, recipe: Recipe, mesh: jax.sharding.Mesh):
            super().__init__(task, recipe, mesh)
            metrics = jnp.ones(len(task.metric_names))
            nothing = lambda leaves, batches: (leaves, [metrics for _ in batches])
            whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
            self._step = jax.jit(nothing, donate_argnums=0, out_shardings=(self.shardings, whole))

        def step(self, batches: list[dict[str, jax.Array]]) -> list[jax.Array]:
            call = next(calls)
            if call in (warm, warm + steps):
                marks.append(time.thread_time())
            if call == warm + steps:
                raise _EnoughError
            return super().step(batches)

    rare: dict[str, Any] = {"evaluate_every": 1e6, "checkpoint_every": 1e6, "tracker": "none", "steps_per_call": 1}
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(loop, "Stepper", Idle), contextlib.suppress(_EnoughError):
        recipe = dataclasses.replace(find("lenet5"), batch_size=32, steps=warm + steps, workdir=f"{folder}/run", **rare)
        loop.train(recipe, Console(quiet=True))
    begun, ended = marks
    return (ended - begun) / steps


def main(steps: int = 4000) -> None:
    seconds = python_time_per_step(steps)
    found = {
        "protocol": "processor time of the main thread per step of the training loop, around a step that computes nothing",
        "seconds": seconds,
    }
    print(f"Python: {seconds * 1e3:.3f} ms a step")
    print(result.save("python-step", found))


if __name__ == "__main__":
    main()
