"""The LeNet-5 training step beside torch's, and the overhead of Python in it: python -m experiments.benchmarks.lenet5_step.

Writes experiments/results/cpu/lenet5-step.json. torch is needed for the comparison.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import torch
from rich.console import Console
from torch import nn

from experiments import data
from experiments.measuring import clock, result
from experiments.recipes import find
from experiments.recipes.recipe import Recipe
from experiments.training import loop
from experiments.training import mesh as meshes
from experiments.training.classification import ClassificationTask
from experiments.training.stepper import Stepper
from experiments.training.task import Task

BATCH = 128
STEPS_PER_ROUND = 10


def ours(images: np.ndarray, labels: np.ndarray):
    recipe = dataclasses.replace(
        find("lenet5"), batch_size=BATCH, optimizer="sgd", learning_rate=0.01, schedule="constant", weight_decay=0.0, ema=None
    )
    task = ClassificationTask(recipe, data.load("digits", shift=0), 1000, 10)
    stepper = Stepper(task, recipe, meshes.make_mesh("data=1"))
    batch = {"image": jnp.asarray(images), "label": jnp.asarray(labels)}

    def steps() -> None:
        for _ in range(STEPS_PER_ROUND):
            (metrics,) = stepper.step([batch])
        metrics.block_until_ready()

    return steps


def torchs(images: np.ndarray, labels: np.ndarray):
    net = nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9, nesterov=True)
    x, y = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels).long()

    def steps() -> None:
        for _ in range(STEPS_PER_ROUND):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()

    return steps


class _EnoughError(Exception):
    """The steps that are measured were made."""


def python_time_per_step(steps: int = 4000, warm: int = 200) -> float:
    """Seconds of the main thread's processor time per step of `train` on the digits: everything that the loop does between
    evaluations (reader, dispatch, metrics, a log every `(steps + warm) // 200` steps), around a step that computes nothing."""
    marks: list[float] = []

    class Idle(Stepper):
        def __init__(self, task: Task, recipe: Recipe, mesh: jax.sharding.Mesh):
            super().__init__(task, recipe, mesh)
            metrics = jnp.ones(len(task.metric_names))
            nothing = lambda leaves, batches: (leaves, [metrics for _ in batches])
            whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
            self._step = jax.jit(nothing, donate_argnums=0, out_shardings=(self.shardings, whole))

        def step(self, batches: list[dict[str, jax.Array]]) -> list[jax.Array]:
            marks.append(time.thread_time())
            if len(marks) == warm + steps:
                raise _EnoughError
            return super().step(batches)

    rare: dict[str, Any] = {"evaluate_every": 1e6, "checkpoint_every": 1e6, "tracker": "none", "steps_per_call": 1}
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(loop, "Stepper", Idle), contextlib.suppress(_EnoughError):
        recipe = dataclasses.replace(find("lenet5"), batch_size=32, steps=warm + steps, workdir=f"{folder}/run", **rare)
        loop.train(recipe, Console(quiet=True))
    return (marks[-1] - marks[warm - 1]) / steps


def main(rounds: int = 25, python_steps: int = 4000) -> None:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((BATCH, 32, 32, 1)).astype(np.float32)
    labels = rng.integers(0, 10, BATCH).astype(np.int32)
    times = clock.interleaved({"zoo": ours(images, labels), "torch": torchs(images, labels)}, rounds=rounds)
    per_step = {name: {k: v / STEPS_PER_ROUND for k, v in figures.items()} for name, figures in times.items()}
    found: dict[str, Any] = {
        "protocol": f"batch {BATCH}, float32, Nesterov SGD, {STEPS_PER_ROUND} steps a round, {rounds} rounds in turn",
        "seconds_per_step": per_step,
        "ratio": per_step["zoo"]["median"] / per_step["torch"]["median"],
        "python_protocol": "processor time of the main thread per step of the loop, around a step that computes nothing",
        "python_seconds_per_step": python_time_per_step(python_steps),
    }
    print(f"zoo / torch: {found['ratio']:.2f}; Python: {found['python_seconds_per_step'] * 1e3:.3f} ms a step")
    print(result.save("lenet5-step", found))


if __name__ == "__main__":
    main()
