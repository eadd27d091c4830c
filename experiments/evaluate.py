"""Evaluates a trained model: python -m experiments.evaluate WORKDIR, or WEIGHTS --model NAME [--data NAME[:PATH]].

Prints loss and accuracy on the whole test data and the accuracy of each class, and writes two pictures into the run's folder:
confusion.png, and mistakes.png with the most confident mistakes.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import sys
import textwrap
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

import zoo
from experiments import recipes
from experiments.errors import UserError, run
from experiments.flags import Parser, whole
from experiments.measuring.names import drawable, printable
from experiments.measuring.result import write_json
from experiments.recipes.recipe import Recipe
from experiments.training.judge import judge_of
from experiments.training.restore import TRUST, Run, build, load_run
from experiments.training.run_files import skipped_line
from kernels.runtime.sizes import cdiv


def open_model(
    source: str,
    model: str | None,
    data: str | None,
    data_options: str | None = None,
    checkpoint: str | None = None,
    *,
    trust: bool = False,
) -> tuple[Run, pathlib.Path]:
    """The run or weights to evaluate, and the folder for its pictures."""
    path = pathlib.Path(source)
    if path.is_dir():
        if model or data or data_options:
            raise UserError(f"--model, --data, --data-options: {source} is a workdir, which says itself what it holds")
        return load_run(path, judge_of, checkpoint or "newest", trust=trust), path
    if checkpoint:
        raise UserError(f"--checkpoint: {checkpoint} given, {source} is no workdir")
    if not path.exists() and "://" not in source:
        raise UserError(f"source: {source} is neither a workdir nor a weights file")
    if model is None:
        raise UserError(f"--model: needed for a weights file such as {source}")
    found = build(recipe_for(model, source, data, data_options), judge_of)
    loaded = found.task.model(found.stepper.state)
    report = zoo.load_weights(loaded, source)
    if report.kept:  # a head as it was drawn knows nothing
        raise UserError(
            f"--data: {found.recipe.data} has {len(found.dataset.classes)} classes, {source} was trained for others"
        )
    known = zoo.weights_info(loaded)
    classes = tuple(found.dataset.classes)
    if known.model and known.classes not in ((), classes):  # published weights call theirs by other names than folders do
        pairs = itertools.zip_longest(classes, known.classes, fillvalue="none")
        number, here, there = next((i, *pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
        raise UserError(f"--data: class {number} of {found.recipe.data} is {printable(here)}, of {source} {printable(there)}")
    found.stepper.state = found.task.with_model(found.stepper.state, loaded)
    return found, path.parent if path.exists() else pathlib.Path()


def recipe_for(model: str, weights: str, data: str | None, data_options: str | None = None) -> Recipe:
    """The model's recipe on the data given, whose images are made ready as the weights want them."""
    recipe = recipes.find(model, data)
    if recipe.task == "classification":
        recipe = dataclasses.replace(recipe, weights=weights)
    if data is not None:
        same = recipe.data.partition(":")[0] == data.partition(":")[0]
        recipe = dataclasses.replace(recipe, data=data, data_options=recipe.data_options if same else "")
    return recipe if data_options is None else dataclasses.replace(recipe, data_options=data_options)


def predict(opened: Run, batch_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class probabilities [examples, classes], labels and places [examples] of the test data that can be read."""
    probabilities, labels, places = [], [], []
    preprocess, key = opened.dataset.preprocess, jax.random.key(0)

    @jax.jit(compiler_options=zoo.compiler_options())
    def forward(leaves: Any, batch: dict[str, jax.Array]) -> jax.Array:
        opened_state = jax.tree.unflatten(jax.tree.structure(opened.stepper.state), leaves)
        return jax.nn.softmax(opened.task.model(opened_state)(preprocess(batch, key, False)["image"]))

    for number, batch in enumerate(opened.dataset.evaluation_batches(batch_size)):
        real = np.flatnonzero(batch["weight"] > 0)
        probabilities.append(np.asarray(forward(opened.stepper.leaves, batch))[real])
        labels.append(batch["label"][real])
        places.append(number * batch_size + real)
    return np.concatenate(probabilities), np.concatenate(labels), np.concatenate(places)


def draw_confusion(counts: np.ndarray, classes: tuple[str, ...], path: pathlib.Path) -> None:
    """Counts [true, predicted] as a picture; the diagonal is what is right."""
    from matplotlib.figure import Figure

    size = min(max(4.5, 0.42 * len(classes)), 16)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= 40:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if share[row, column] > 0.5 else "#b03a2e" if row != column else "black"
                axes.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)
        names, how = drawable(classes)
        axes.set_xticks(range(len(classes)), names, rotation=90 if max(map(len, names)) > 2 else 0, **how)
        axes.set_yticks(range(len(classes)), names, **how)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"{np.trace(counts)} of {counts.sum()} right", fontsize=10)
    figure.savefig(path, dpi=110)


def draw_mistakes(images: np.ndarray, captions: list[tuple[str, str, str]], path: pathlib.Path) -> None:
    """The images [n, height, width, channels], values 0 to 1, each with its class, what it was taken for, and how surely."""
    from matplotlib.figure import Figure

    columns = min(8, len(images))
    rows = cdiv(len(images), columns)
    figure = Figure(figsize=(1.5 * columns, 1.75 * rows), layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.axis("off")
    names, how = drawable(name for caption in captions for name in caption[:2])
    # An image is as wide as 24 characters.
    taken = [textwrap.fill(f"{names[2 * i]}, taken for {names[2 * i + 1]}", 24) for i in range(len(captions))]
    lines = [f"{text}\n{sure}" for text, (_, _, sure) in zip(taken, captions, strict=True)]
    for axes, image, line in zip(figure.axes, np.clip(images, 0, 1), lines, strict=False):
        shown = image[..., 0] if image.shape[-1] == 1 else image
        axes.imshow(shown, cmap="gray_r" if image.shape[-1] == 1 else None, vmin=0, vmax=1)
        axes.set_title(line, fontsize=8, **how)
    figure.savefig(path, dpi=110)


def classification_report(opened: Run, folder: pathlib.Path, console: Console, worst: int) -> None:
    """Accuracy by class, confusion.png and mistakes.png."""
    classes = opened.dataset.classes
    probabilities, labels, places = predict(opened, opened.recipe.batch_size)
    predicted = probabilities.argmax(1)
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (labels, predicted), 1)
    if len(classes) <= 40:
        table = Table("class", "examples", "right", "most often taken for")
        for index, name in enumerate(classes):
            others = counts[index].copy()
            others[index] = 0
            taken = f"{printable(classes[others.argmax()])} ({others.max()})" if others.any() else ""
            right = f"{counts[index, index] / counts[index].sum():.1%}" if counts[index].any() else "none to test with"
            table.add_row(Text(printable(name)), str(counts[index].sum()), right, Text(taken))
        console.print(table)
    draw_confusion(counts, classes, folder / "confusion.png")
    written = [folder / "confusion.png"]
    confidence = probabilities[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(confidence[wrong], kind="stable")][:worst]
    if len(wrong):
        batch = opened.dataset.test.gather(places[wrong], None) | {"weight": np.ones(len(wrong), np.float32)}
        images = opened.dataset.preprocess(batch, jax.random.key(0), False)["image"]
        captions = [(classes[labels[i]], classes[predicted[i]], f"{probabilities[i].max():.0%} sure") for i in wrong]
        draw_mistakes(np.asarray(opened.dataset.picture(images)), captions, folder / "mistakes.png")
        written.append(folder / "mistakes.png")
    console.print(f"pictures: {', '.join(map(str, written))}", soft_wrap=True)


def main(arguments: list[str]) -> int:
    parser = Parser("experiments.evaluate", __doc__, "runs/lenet5-digits")
    parser.add_argument("source", help="a workdir, or a weights file (.safetensors, or written by torch.save)")
    parser.add_argument("--model", help="the model that a weights file is for")
    parser.add_argument("--data", help="the data to evaluate a weights file on (the model's own data set)")
    parser.add_argument("--data-options", help="options of the data set, as NAME=VALUE,NAME=VALUE, such as skip_corrupt=True")
    parser.add_argument("--worst", type=whole(0, 1000), default=24, help="number of mistakes to draw (%(default)s)")
    parser.add_argument(
        "--checkpoint", help="of a workdir: newest (the default), best (selected by the run's --best), or a step"
    )
    parser.add_argument("--trust", action="store_true", help=TRUST)
    options = parser.parse_args(arguments)
    given = (options.source, options.model, options.data, options.data_options, options.checkpoint)
    opened, folder = open_model(*given, trust=options.trust)
    console = Console(highlight=False, markup=False, emoji=False)  # names are printed as they are
    figures = opened.task.evaluate(opened.stepper)
    shown = ", ".join(f"{name} {value:.2%}" if name == "accuracy" else f"{name} {value:.4f}" for name, value in figures.items())
    line = printable(f"{opened.recipe.model} on the test part of {opened.recipe.data}: {shown}")
    console.print(line, soft_wrap=True)
    if opened.recipe.task == "classification":
        classification_report(opened, folder, console, options.worst)
    skipped = opened.dataset.skipped
    if skipped:
        console.print(skipped_line(skipped), soft_wrap=True)
    write_json(
        folder / "evaluation.json", {"step": opened.step} | figures | ({"skipped": skipped} if skipped else {}), indent=2
    )
    return 0


if __name__ == "__main__":
    zoo.keep_freed_memory()
    sys.exit(run(main))
