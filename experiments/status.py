"""Shows the state of the runs in a folder: python -m experiments.status [runs/].

Prints a line per run: running, stopped or finished, its progress, and its last figures on the test data. It only reads, so it
can run at any time.
"""

from __future__ import annotations

import dataclasses
import fcntl
import pathlib
import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.errors import UserError, run
from experiments.flags import Parser
from experiments.measuring.names import printable
from experiments.training import run_files
from experiments.training.folder import ASIDE, LOCK, MOVING


@dataclasses.dataclass(frozen=True)
class Status:
    """One run.

    Attributes:
      state: "running", "stopped", "finished" or "damaged".
      owner: the process that runs it.
      step: of the last figures written; `steps` in all, where that is known.
      figures: the last ones on the test data, without the step.
      examples_per_second: of a run that is running.
      problem: what is wrong with one that is damaged.
    """

    workdir: pathlib.Path
    state: str
    model: str = ""
    data: str = ""
    owner: str = ""
    step: int = 0
    steps: int | None = None
    figures: dict[str, float] = dataclasses.field(default_factory=dict)
    examples_per_second: float | None = None
    problem: str = ""


def owner_of(workdir: pathlib.Path) -> str | None:
    """The process that runs in `workdir`, None where none does."""
    try:
        with (workdir / LOCK).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return file.read().strip() or "unknown"
            return None  # and the shared lock ends here
    except OSError:
        return None


def status_of(workdir: pathlib.Path) -> Status:
    """How the run in `workdir` is doing."""
    try:
        settings = run_files.read_config(workdir) or {}
        rows = run_files.read_metrics(workdir)
        summary = run_files.read_json(workdir / "summary.json") if (workdir / "summary.json").exists() else None
    except UserError as error:
        return Status(workdir, "damaged", problem=str(error))
    owner = owner_of(workdir)
    test: dict[str, Any] = next((row for row in reversed(rows) if row["split"] == "test"), {})
    train: dict[str, Any] = next((row for row in reversed(rows) if row["split"] == "train"), {})
    return Status(
        workdir,
        "running" if owner else "finished" if summary is not None else "stopped",
        str(settings.get("model", "")),
        str(settings.get("data", "")),
        owner or "",
        rows[-1]["step"] if rows else 0,
        next((steps for found in (summary or {}, settings) if type(steps := found.get("steps")) is int), None),
        {name: value for name, value in test.items() if name not in ("step", "split")},
        train.get("examples_per_second") if owner else None,
    )


def runs_below(folder: pathlib.Path) -> list[Status]:
    """All runs in a folder and the folders in it, by name.

    Raises:
      UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"folder: {folder} does not exist")
    found = [path.parent for path in sorted(folder.rglob("config.json"))]
    return [status_of(path) for path in found if not {ASIDE, MOVING} & set(path.parts)]


def _figures(status: Status) -> str:
    if status.problem:
        return status.problem
    first = [name for name in ("accuracy", "loss") if name in status.figures]
    names = [*first, *(name for name in status.figures if name not in first)][:3]
    shown = [f"{name.replace('_', ' ')} {_number(name, status.figures[name])}" for name in names]
    speed = status.examples_per_second
    return ", ".join(shown + ([f"{speed:,.0f} examples/s"] if speed else []) + ([status.owner] if status.owner else []))


def _number(name: str, value: Any) -> str:
    return f"{value:.2%}" if name.endswith("accuracy") else f"{value:.4g}"


def main(arguments: list[str]) -> int:
    parser = Parser("experiments.status", __doc__, "runs/")
    parser.add_argument(
        "folder", nargs="?", type=pathlib.Path, default=pathlib.Path("runs"), help="the folder of the runs (runs/)"
    )
    folder = parser.parse_args(arguments).folder
    found = runs_below(folder)
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(table(folder, found) if found else f"no runs in {folder}/")
    return 0


def table(folder: pathlib.Path, found: list[Status]) -> Table:
    """A row for each run."""
    table = Table("run", "state", "step", "on the test data", box=None, pad_edge=False)
    for status in found:
        name = status.workdir.relative_to(folder).as_posix() if status.workdir != folder else folder.name
        step = f"{status.step:,}" + (f" of {status.steps:,}" if status.steps else "")
        table.add_row(Text(printable(name)), status.state, step, Text(printable(_figures(status))))
    return table


if __name__ == "__main__":
    sys.exit(run(main))
