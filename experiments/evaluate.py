"""How good a trained model is: python -m experiments.evaluate WORKDIR, or WEIGHTS --model NAME [--data NAME[:PATH]].

Prints loss and accuracy over the whole test data, the accuracy of each class, and writes two pictures beside the run:
confusion.png, and mistakes.png with the most confident mistakes.
"""

from __future__ import annotations

import pathlib
import sys
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.errors import UserError, run
from experiments.flags import Parser, whole
from experiments.measuring.result import write_json
from experiments.training.judge import judge_of
from experiments.training.restore import Run, build, load_run
from kernels.runtime.sizes import cdiv


def open_model(source: str, model: str | None, data: str | None) -> tuple[Run, pathlib.Path]:
    """The run or weights to evaluate, and the folder for its pictures."""
    path = pathlib.Path(source)
    if path.is_dir():
        if model or data:
            raise UserError(f"--model, --data: {source} is a workdir, which says itself what it holds")
        return load_run(path, judge_of), path
    if not path.exists() and "://" not in source:
        raise UserError(f"source: {source} is neither a workdir nor a weights file")
    if model is None:
        raise UserError(f"--model: needed for a weights file such as {source}")
    from experiments import recipes
    from zoo.weights import load_weights  # type: ignore[attr-defined]

    found = build(recipes.find(model, data), judge_of)
    loaded = found.task.model(found.stepper.state)
    load_weights(loaded, source)
    found.stepper.state = found.task.with_model(found.stepper.state, loaded)
    return found, path.parent if path.exists() else pathlib.Path()


def predict(opened: Run, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Class probabilities [examples, classes] and labels [examples] over the test data."""
    probabilities, labels = [], []
    preprocess, key = opened.dataset.preprocess, jax.random.key(0)

    @jax.jit
    def forward(leaves: Any, batch: dict[str, jax.Array]) -> jax.Array:
        opened_state = jax.tree.unflatten(jax.tree.structure(opened.stepper.state), leaves)
        return jax.nn.softmax(opened.task.model(opened_state)(preprocess(batch, key, False)["image"]))

    for batch in opened.dataset.evaluation_batches(batch_size):
        real = batch["weight"] > 0
        probabilities.append(np.asarray(forward(opened.stepper.leaves, batch))[real])
        labels.append(batch["label"][real])
    return np.concatenate(probabilities), np.concatenate(labels)


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
        axes.set_xticks(range(len(classes)), classes, rotation=90 if max(map(len, classes)) > 2 else 0)
        axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"{np.trace(counts)} of {counts.sum()} right", fontsize=10)
    figure.savefig(path, dpi=110)


def draw_mistakes(images: np.ndarray, captions: list[str], path: pathlib.Path) -> None:
    """The images [n, height, width, channels], values -1 to 1, each with its caption."""
    from matplotlib.figure import Figure

    columns = min(8, len(images))
    rows = cdiv(len(images), columns)
    figure = Figure(figsize=(1.5 * columns, 1.75 * rows), layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.axis("off")
    for axes, image, caption in zip(figure.axes, images, captions, strict=False):
        shown = image[..., 0] if image.shape[-1] == 1 else image
        axes.imshow(shown, cmap="gray_r" if image.shape[-1] == 1 else None, vmin=-1, vmax=1)
        axes.set_title(caption, fontsize=8)
    figure.savefig(path, dpi=110)


def classification_report(opened: Run, folder: pathlib.Path, console: Console, worst: int) -> None:
    """Accuracy by class, confusion.png and mistakes.png."""
    classes = opened.dataset.classes
    probabilities, labels = predict(opened, opened.recipe.batch_size)
    predicted = probabilities.argmax(1)
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (labels, predicted), 1)
    if len(classes) <= 40:
        table = Table("class", "examples", "right", "most often taken for")
        for index, name in enumerate(classes):
            others = counts[index].copy()
            others[index] = 0
            taken = f"{classes[others.argmax()]} ({others.max()})" if others.any() else ""
            table.add_row(name, str(counts[index].sum()), f"{counts[index, index] / max(counts[index].sum(), 1):.1%}", taken)
        console.print(table)
    draw_confusion(counts, classes, folder / "confusion.png")
    written = [folder / "confusion.png"]
    confidence = probabilities[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(confidence[wrong], kind="stable")][:worst]
    if len(wrong):
        batch = opened.dataset.test.gather(wrong, None) | {"weight": np.ones(len(wrong), np.float32)}
        low, high = opened.dataset.value_range
        images = np.asarray(opened.dataset.preprocess(batch, jax.random.key(0), False)["image"])
        captions = [
            f"{classes[labels[i]]}, taken for {classes[predicted[i]]}\n{probabilities[i].max():.0%} sure" for i in wrong
        ]
        draw_mistakes((images - low) / (high - low) * 2 - 1, captions, folder / "mistakes.png")
        written.append(folder / "mistakes.png")
    console.print(f"pictures: {', '.join(map(str, written))}", highlight=False, soft_wrap=True)


def main(arguments: list[str]) -> int:
    parser = Parser("experiments.evaluate", __doc__, "runs/lenet5-digits")
    parser.add_argument("source", help="a workdir, or a weights file (.safetensors, .pth)")
    parser.add_argument("--model", help="the model that a weights file is for")
    parser.add_argument("--data", help="the data to evaluate a weights file on; the model's own if not given")
    parser.add_argument("--worst", type=whole(0, 1000), default=24, help="how many mistakes to draw (%(default)s)")
    options = parser.parse_args(arguments)
    opened, folder = open_model(options.source, options.model, options.data)
    console = Console()
    figures = opened.task.evaluate(opened.stepper)
    shown = ", ".join(f"{name} {value:.2%}" if name == "accuracy" else f"{name} {value:.4f}" for name, value in figures.items())
    console.print(f"{opened.recipe.model} on the test part of {opened.recipe.data}: {shown}", highlight=False)
    if opened.recipe.task == "classification":
        classification_report(opened, folder, console, options.worst)
    write_json(folder / "evaluation.json", {"step": opened.step} | figures, indent=2)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
