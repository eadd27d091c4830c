"""The trained network as a model of its own: model.safetensors and its card, as `zoo.load_model` reads them."""

from __future__ import annotations

import pathlib
from typing import Any

import jax

import zoo
from experiments.data import Dataset
from experiments.recipes.recipe import Recipe
from experiments.training.mesh import to_host
from experiments.training.task import Task, TrainState
from zoo.weights import runs


def save_trained(
    recipe: Recipe, dataset: Dataset, task: Task, state: TrainState, workdir: pathlib.Path, summary: dict[str, Any]
) -> None:
    """Write the network that the last evaluation was of: the last step's, its averaged weights where there are such.

    Its figures are those of the summary. Every process takes part, since parameters may be spread over them; the first writes.

    Raises:
      ValueError: the model cannot be described in a file.
    """
    whole = lambda leaf: leaf if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else to_host(leaf)
    model = task.model(jax.tree.map(whole, state._replace(optimizer=None)))
    if jax.process_index() != 0:
        return
    kind = recipe.task
    reads_tokens = kind == "language_model"  # whose classes are its vocabulary
    names = () if reads_tokens or getattr(model, "num_classes", 1) is None else dataset.classes
    name, _, path = recipe.data.partition(":")
    prefix = "" if kind == "gan" else "test "
    figures = {prefix + n.removeprefix("eval_").replace("_", " "): v for n, v in summary.items() if n.startswith("eval_")}
    known: dict[str, Any] = {
        "classes": names,
        "vocabulary": dataset.classes if reads_tokens else dataset.vocabulary,
        "preprocessing": dataset.preprocessing if kind == "classification" else None,
        "data": f"{name}:{pathlib.Path(path).name}" if path else name,  # where it lay on this machine is nobody's business
    }
    figures |= {n: summary[n] for n in ("epochs", "steps")}
    if hasattr(model, "zoo_name"):
        zoo.save_model(model, workdir, figures=figures, **known)
    else:  # a model of one's own: a file cannot say how to build it
        info = zoo.WeightsInfo(figures=tuple(figures.items()), **known)
        zoo.save_weights(model, workdir / runs.MODEL, layout="zoo", info=info)
