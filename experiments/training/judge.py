"""The trained LeNet that measures generated images: from an existing run, or trained once beside the run that needs it."""

from __future__ import annotations

import dataclasses
import io
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console

import zoo
from experiments import recipes
from experiments.data import Dataset
from experiments.errors import UserError, run
from experiments.recipes.recipe import Recipe
from experiments.training import processes, run_files
from experiments.training.loop import train
from experiments.training.quality import Judge, measure


def judge_of(recipe: Recipe, dataset: Dataset) -> Judge:
    """The judge of a GAN's recipe for its data: the workdir that its task option `judge` names, or judge-DATA beside its own.

    Raises:
      UserError: the workdir named holds no finished run of lenet5.
    """
    source = recipe.options("task").get("judge")
    path = pathlib.Path(source or pathlib.Path(recipe.directory).parent / f"judge-{dataset.name.partition(':')[0]}")
    if not processes.first(lambda: (path / "summary.json").exists()):
        if source:
            raise UserError(f"judge: {source} holds no finished run of lenet5")
        _train(dataset, path)
    processes.first(lambda: _check(path))  # and its files are written, whichever process reads them
    # Each process has the whole judge on a device of its own, and measures the same images.
    model = zoo.load_model(path)
    graph, params, rest = zoo.split(model)
    channels = model.conv1.in_channels  # type: ignore[attr-defined]

    @jax.jit(compiler_options=zoo.compiler_options())
    def look(params: nnx.State, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        images = jax.image.resize(images, (*images.shape[:1], 32, 32, images.shape[-1]), "bilinear")
        if images.shape[-1] != channels:
            images = images.mean(-1, keepdims=True).repeat(channels, -1)
        network = nnx.merge(graph, params, rest)
        features = network.features(images)["fc2"]
        return features, network.fc3(features)

    def forward(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = [look(params, jnp.asarray(images[start : start + 500])) for start in range(0, len(images), 500)]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    images, labels = _real_images(dataset)
    half = len(images) // 2
    shares = np.bincount(labels, minlength=len(dataset.classes)) / len(labels)
    judge = Judge(forward, forward(images[:half])[0], half, shares, {})
    return dataclasses.replace(judge, reference=measure(judge, images[half : 2 * half]))


def _check(path: pathlib.Path) -> None:
    model = (run_files.read_config(path) or {}).get("model")
    if model != "lenet5":
        raise UserError(f"judge: {path} holds {model or 'no run'}, lenet5 is needed")


def _real_images(dataset: Dataset, most: int = 10_000) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of both parts, mixed in an order that is always the same."""
    images, labels = [], []
    for part in (dataset.train, dataset.test):
        indices = np.random.default_rng(0).permutation(len(part))[:most]
        batch = dataset.preprocess(part.gather(indices, None), jax.random.key(0), False)
        images.append(np.asarray(batch["image"]))
        labels.append(np.asarray(batch["label"]))
    order = np.random.default_rng(1).permutation(sum(map(len, labels)))
    return np.concatenate(images)[order], np.concatenate(labels)[order]


def _train(dataset: Dataset, path: pathlib.Path) -> None:
    if processes.count() > 1:
        processes.first(lambda: _train_apart(dataset.name, path))
    else:
        train_judge(dataset.name, path)


def train_judge(data: str, path: pathlib.Path, mesh: str = "data=-1") -> None:
    """Train the judge of a data set, or go on with it, in the workdir `path`."""
    options = "size=32" if data.partition(":")[0] != "digits" else ""
    recipe = dataclasses.replace(
        recipes.find("lenet5"), data=data, workdir=str(path), resume=True, data_options=options, mesh=mesh
    )
    train(recipe, Console(file=io.StringIO()))


def _train_apart(data: str, path: pathlib.Path) -> None:
    """The same by a process of its own on the CPU: a LeNet spread over processes would wait for the network most of the time,
    and be another one for another number of them."""
    command = [sys.executable, "-m", "experiments.training.judge", data, str(path)]
    done = subprocess.run(command, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise UserError(f"judge: its training ended with status {done.returncode}: {said[-1] if said else ''}")


def main(arguments: list[str]) -> int:
    """DATA PATH: see `_train_apart`."""
    data, path = arguments
    train_judge(data, pathlib.Path(path), "data=1")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
