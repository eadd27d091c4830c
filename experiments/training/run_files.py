"""The files of a run in its workdir: settings, metrics over time, the summary, curves."""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

from experiments.errors import UserError, explain
from experiments.measuring.names import drawable, printable
from experiments.training.trackers import Trackers
from kernels.runtime.sizes import cdiv
from zoo import model_card
from zoo.preprocessing import Preprocessing
from zoo.weights import runs

CHECKPOINTS = runs.CHECKPOINTS
FILES = ("config.json", "metrics.jsonl", "summary.json", "curves.png", "samples.png", "samples.gif", runs.MODEL)
FOLDERS = (CHECKPOINTS, "tensorboard", "samples", "profile")


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """An object from a JSON file.

    Raises:
      UserError: the file is missing or damaged.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"workdir: {path} does not exist") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, or a number of more digits than Python reads
        raise UserError(f"workdir: {path} is damaged ({explain(error)}); --no-resume starts the run anew") from error
    if not isinstance(content, dict):
        raise UserError(f"workdir: {path} is damaged (no object); --no-resume starts the run anew")
    return content


def read_config(workdir: pathlib.Path) -> dict[str, Any] | None:
    """The settings of the run in `workdir`; None if it holds no run.

    Raises:
      UserError: config.json is there but damaged.
    """
    path = workdir / "config.json"
    if not path.exists():
        return None
    settings = read_json(path).get("recipe")
    if not isinstance(settings, dict):
        raise UserError(f"workdir: {path} is damaged or no run's (it has no recipe); give another --workdir")
    return settings


def read_preprocessing(workdir: pathlib.Path) -> Preprocessing | None:
    """How the images of the run in `workdir` are made ready; None where its data say that themselves.

    Raises:
      UserError: config.json is damaged.
    """
    said = read_json(workdir / "config.json").get("preprocessing")
    try:
        return Preprocessing.from_dict(said) if said is not None else None
    except (ValueError, TypeError) as error:
        raise UserError(f"workdir: {workdir / 'config.json'} is damaged ({explain(error)})") from error


def newest_checkpoint(workdir: pathlib.Path) -> int:
    """The step of the newest checkpoint in `workdir`, 0 where there is none."""
    return max((int(p.name) for p in (workdir / CHECKPOINTS).glob("[0-9]*") if p.name.isdigit()), default=0)


def earlier_part(workdir: pathlib.Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The settings of the run in `workdir` if it is an earlier part of this very run, which may be longer now, or on
    other devices.

    Raises:
      UserError: it holds another run; the message names the settings that differ.
    """
    old = read_config(workdir)
    if old is None or not newest_checkpoint(workdir):
        return None  # nothing was trained that could be lost
    new = json.loads(json.dumps(settings))
    different = sorted(
        name for name in {*old, *new} - {"epochs", "steps", "mesh", "early_stop"} if old.get(name) != new.get(name)
    )
    if different:
        listed = ", ".join(f"{name} {old.get(name)!r} there, {new.get(name)!r} now" for name in different[:4])
        raise UserError(f"workdir: {workdir} holds another run ({listed}); give another --workdir, or --no-resume to delete it")
    return old


def clear(workdir: pathlib.Path) -> None:
    """Delete what an earlier run left, and nothing else."""
    for name in FILES:
        (workdir / name).unlink(missing_ok=True)
    card = workdir / model_card.FILE
    if card.is_file() and model_card.is_own(card):
        card.unlink()
    for name in FOLDERS:
        shutil.rmtree(workdir / name, ignore_errors=True)


class Metrics:
    """metrics.jsonl and what the trackers get, written as the run goes.

    After an interruption both continue from the checkpoint: lines of steps that will be run again are dropped.
    """

    def __init__(self, workdir: pathlib.Path, start_step: int, trackers: Trackers):
        self.path, self._trackers = workdir / "metrics.jsonl", trackers
        kept = [row for row in read_metrics(workdir) if row["step"] <= start_step] if start_step else []
        self.path.write_text("".join(json.dumps(row) + "\n" for row in kept))
        self._file = self.path.open("a", buffering=1)
        trackers.start(read_json(workdir / "config.json") | {"workdir": str(workdir), "step": start_step})

    def write(self, row: dict[str, Any]) -> None:
        """Append one row: step, split and figures."""
        self._file.write(json.dumps(row) + "\n")
        self._trackers.log(row)

    def images(self, step: int, images: dict[str, pathlib.Path]) -> None:
        """Pictures that were written."""
        self._trackers.images(step, images)

    def finish(self, summary: dict[str, Any] | None) -> None:
        """The end of the run; None where it was interrupted."""
        self._file.close()
        trackers, self._trackers = self._trackers, Trackers("none", print)
        trackers.finish(summary)

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_: Any) -> None:
        self.finish(None)


def read_metrics(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """All complete rows of metrics.jsonl; a last line cut off by a kill is left out.

    Raises:
      UserError: another line is no row of metrics.
    """
    path = workdir / "metrics.jsonl"
    rows: list[dict[str, Any]] = []
    try:
        lines = path.read_text().splitlines() if path.exists() else []
    except UnicodeDecodeError as error:
        raise UserError(f"workdir: {path} is damaged ({explain(error)})") from error
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            if number == len(lines):
                break
            row = None
        if not _is_row(row):
            raise UserError(f"workdir: {path} is damaged: line {number} is no row of metrics; take it out to go on")
        rows.append(row)
    return rows


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("step"), int) or not isinstance(row.get("split"), str):
        return False
    # A float holds no larger integer; what is drawn and shown of it is a float.
    number = lambda value: isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**1000)
    return all(number(value) for name, value in row.items() if name != "split")


def skipped_line(files: list[str]) -> str:
    """What is said of images that could not be read."""
    shown = printable(", ".join(files[:20])) + (f" and {len(files) - 20} more" if len(files) > 20 else "")
    images, were = ("image", "was") if len(files) == 1 else ("images", "were")
    return f"skip_corrupt: {len(files)} {images} could not be read and {were} left out: {shown}"


NOT_DRAWN = ("step", "split", "examples_per_second", "learning_rate", "input_wait", "peak_memory_bytes", "peak_share")


# Figures that share a panel, by its title; any other has one of its own.
PANELS = {
    "losses": ("generator_loss", "discriminator_loss"),
    "scores": ("score_of_real", "score_of_fake"),
    "gradient norms": ("generator_gradient_norm", "discriminator_gradient_norm"),
    "precision and recall": ("precision", "recall"),
    "classes": ("label_distance", "missing_classes"),
}
COLOURS = ("#0072B2", "#E69F00")  # of the figures of a shared panel


def panels_of(names: set[str]) -> dict[str, list[str]]:
    """The figures of each panel; loss and accuracy first. A GAN's loss is the sum of two, which have a panel."""
    shared = {title: [n for n in of if n in names] for title, of in PANELS.items()}
    shared = {title: found for title, found in shared.items() if len(found) > 1}
    taken = {name for found in shared.values() for name in found}
    if "losses" in shared:
        taken.add("loss")
    first = [name for name in ("loss", "accuracy") if name in names - taken]
    alone = first + sorted(n for n in names - set(first) - taken if not n.startswith("real_"))
    panels = {name.replace("_", " "): [name] for name in alone}
    return {"losses": shared.pop("losses")} | panels | shared if "losses" in shared else panels | shared


def draw_curves(workdir: pathlib.Path, title: str) -> None:
    """curves.png: figures over the steps, training and test data in one panel, figures that belong together too.

    A figure "real_NAME" is what real data gets in the place of NAME, and is drawn as a line in NAME's panel.
    """
    from matplotlib.figure import Figure

    rows = read_metrics(workdir)
    panels = panels_of({name for row in rows for name in row} - set(NOT_DRAWN))
    if not panels:
        return
    columns = min(3 if len(panels) % 4 in (1, 2) and len(panels) > 4 else 4, len(panels))
    lines = cdiv(len(panels), columns)
    figure = Figure(figsize=(4.6 * columns, 3.4 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for unused in axes[len(panels) :]:
        unused.axis("off")
    for one, (panel, names) in zip(axes, panels.items(), strict=False):
        if len(names) == 1:
            _draw_figure(one, names[0], rows)
        else:
            _draw_together(one, panel, names, rows)
    (title,), how = drawable([title])
    figure.suptitle(title, fontsize=11, **how)
    figure.savefig(workdir / "curves.png", dpi=110)


def _draw_together(axes: Any, title: str, names: list[str], rows: list[dict[str, Any]]) -> None:
    """Several figures in one panel, a colour each; dashed what real data gets."""
    for name, colour in zip(names, COLOURS, strict=True):
        for split, marker in (("train", None), ("test", "o")):
            points = [(row["step"], row[name]) for row in rows if row["split"] == split and name in row]
            if points:
                label = name.replace("_", " ")
                axes.plot(*zip(*points, strict=True), color=colour, label=label, marker=marker, markersize=3)
        real = [row[f"real_{name}"] for row in rows if f"real_{name}" in row]
        if real:
            axes.axhline(real[-1], color=colour, linestyle="--", linewidth=1, label="of real data")
    _finish(axes, title)


def _finish(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)


def _draw_figure(axes: Any, name: str, rows: list[dict[str, Any]]) -> None:
    for split, colour, label in (("train", "#9bb8d3", "training"), ("test", "#c0392b", "test")):
        points = [(row["step"], row[name]) for row in rows if row["split"] == split and name in row]
        if points:
            marker = "o" if split == "test" else None
            axes.plot(*zip(*points, strict=True), color=colour, label=label, marker=marker, markersize=3)
    real = [row[f"real_{name}"] for row in rows if f"real_{name}" in row]
    if real:
        axes.axhline(real[-1], color="#555555", linestyle="--", linewidth=1, label="real data")
    # A loss or distance that falls by orders of magnitude can be read only on a logarithmic axis; a share cannot be on one.
    values = [row[name] for row in rows if name in row] + real[-1:]
    if name.endswith(("loss", "distance")) and min(values) > 0 and max(values) > 20 * min(values):
        axes.set_yscale("log")
    last = [row[name] for row in rows if row["split"] == "test" and name in row]
    _finish(axes, f"{name.replace('_', ' ')}, {last[-1]:.4g} at the end" if last else name.replace("_", " "))
