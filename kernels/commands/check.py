"""python -m kernels check [OPERATOR ...]: is every kernel correct on this device?

Each implementation of each operator runs in its own process; values and gradients are compared with float64. One that hangs,
crashes or is wrong becomes a line of the table. Results from a GPU are written to the user's cache, which `implementation=None`
consults before it chooses a kernel with a barrier across its grid.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from kernels.commands import processes
from kernels.commands.dtypes import DTYPES
from kernels.runtime import dispatch, measured
from kernels.runtime.devices import Device

LIMIT = 300.0  # seconds for one case: nearly all of it is to compile
RIGHT, REFUSED = "right", "refused"
NO_FAULT = (RIGHT, REFUSED)


@dataclasses.dataclass(frozen=True)
class Row:
    """What was found of one implementation of an operator.

    Attributes:
      worst: for each dtype that it ran in, the largest error relative to the largest element of a result.
      verdict: "right", "refused" (it ran in no case, and said why), "wrong", "crashed", "timed out" or "failed".
    """

    operator: str
    implementation: str
    worst: dict[str, float]
    verdict: str
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Description:
    """A device, and for each operator its implementations with the reason why one does not run there."""

    device: Device
    versions: dict[str, str]
    available: dict[str, dict[str, str | None]]


class NoDeviceError(Exception):
    """JAX does not start on this machine; the message says why."""


def describe(limit: float = LIMIT, command: Callable[..., Sequence[str]] = processes.worker) -> Description:
    """Asked of a process of its own, so that this one leaves the device's memory alone."""
    said: list[dict[str, Any]] = []
    end = processes.run(command("describe"), limit, said.append)
    if end.verdict is not None or not said:
        raise NoDeviceError(f"the device could not be asked: {end.verdict or 'nothing was said'}: {end.reason}")
    facts = said[0]["device"] | {"compute_capability": tuple(said[0]["device"]["compute_capability"])}
    return Description(Device(**facts), said[0]["versions"], {line["operator"]: line["available"] for line in said[1:]})


def tasks(found: Description, operators: Sequence[str], implementations: Sequence[str]) -> list[tuple[str, str]]:
    """What there is to check: the implementations asked for; else all, but of those that run kernels on the CPU the interpreter
    alone, and that only on a machine without a GPU."""
    on_gpu = found.device.platform == "cuda"
    unasked = [name for name in dispatch.ON_HOST if on_gpu or name != "interpret"]
    return [
        (operator, name)
        for operator, available in found.available.items()
        for name, reason in available.items()
        if operator in operators and reason is None and (name in implementations if implementations else name not in unasked)
    ]


def check(
    chosen: Sequence[tuple[str, str]],
    limit: float = LIMIT,
    command: Callable[..., Sequence[str]] = processes.worker,
    on_progress: Callable[[str], None] = lambda doing: None,
) -> Iterator[Row]:
    """A row for each (operator, implementation), as soon as it is known."""
    for operator, implementation in chosen:
        said: list[dict[str, Any]] = []

        def heard(line: dict[str, Any], operator=operator, implementation=implementation, said=said) -> None:
            said.append(line)
            if "begun" in line:
                on_progress(f"{operator} {implementation}: {line['begun']}, {line['dtype']}")

        on_progress(f"{operator} {implementation}")
        end = processes.run(command("check", operator, implementation), limit, heard)
        yield _row(operator, implementation, said, end)


def _row(operator: str, implementation: str, said: list[dict[str, Any]], end: processes.End) -> Row:
    worst: dict[str, float] = {}
    for line in said:
        if "error" in line:
            worst[line["dtype"]] = max(line["error"], worst.get(line["dtype"], 0.0))
    wrong = [line for line in said if "wrong" in line]
    refused = "; ".join(dict.fromkeys(line["refused"] for line in said if "refused" in line))
    if end.verdict is not None:
        during = next((f" in {line['begun']}, {line['dtype']}" for line in reversed(said) if "begun" in line), "")
        return Row(operator, implementation, worst, end.verdict, f"{end.reason}{during}")
    if wrong:
        more = f" (and {len(wrong) - 1} more)" * (len(wrong) > 1)
        reason = f"{wrong[0]['case']}, {wrong[0]['dtype']}: {wrong[0]['wrong']}{more}"
        return Row(operator, implementation, worst, "wrong", reason)
    return Row(operator, implementation, worst, RIGHT if worst else REFUSED, refused)


def record(found: Description, rows: Sequence[Row]) -> str:
    """Writes what was found into the user's file of this device; its path, as text.

    Raises:
      OSError: it cannot be written.
    """
    stamp = {"date": datetime.date.today().isoformat(), "versions": found.versions}

    def change(content: dict[str, Any]) -> None:
        for row in rows:
            entry = {"verdict": row.verdict, "reason": row.reason, "worst": row.worst}
            entry["source"] = measured.source(row.operator)
            content["checked"].setdefault(row.operator, {})[row.implementation] = entry | stamp

    return str(measured.update(found.device, change))


def table(rows: Sequence[Row], device: str) -> Table:
    shown = Table(title=f"Kernels on {device}: largest error of values and gradients against float64", box=box.SIMPLE_HEAD)
    for name in ("operator", "implementation"):
        shown.add_column(name, no_wrap=True)
    for name in DTYPES:
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("verdict", no_wrap=True)
    for row in rows:
        errors = (f"{row.worst[dtype]:.1e}" if dtype in row.worst else "" for dtype in DTYPES)
        colour = "green" if row.verdict == RIGHT else "yellow" if row.verdict == REFUSED else "bold red"
        shown.add_row(row.operator, row.implementation, *errors, Text(row.verdict, colour))
    return shown


def main(
    operators: Sequence[str],
    implementations: Sequence[str],
    limit: float,
    console: Console,
    command: Callable[..., Sequence[str]] = processes.worker,
) -> int:
    """The command; its status is 1 where anything is wrong."""
    found = describe(limit, command)
    chosen = tasks(found, operators or list(found.available), implementations)
    if not chosen:
        console.print("nothing to check: none of these implementations runs here; `python -m kernels list` says why")
        return 1
    rows: list[Row] = []
    columns = (TextColumn("{task.completed}/{task.total}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(chosen))
        for row in check(chosen, limit, command, lambda doing: progress.update(bar, description=doing)):
            rows.append(row)
            progress.advance(bar)
    console.print(table(rows, found.device.kind))
    for row in rows:
        if row.reason:
            console.print(f"{row.operator} {row.implementation}, {row.verdict}: {row.reason}", markup=False, soft_wrap=True)
    faults = [row for row in rows if row.verdict not in NO_FAULT]
    console.print(f"{len(rows) - len(faults)} of {len(rows)} without a fault")
    if found.device.platform == "cuda":
        try:
            console.print(f"written: {record(found, rows)}", soft_wrap=True)
        except OSError as error:
            reason = f"cannot be written: {error}; {measured.VARIABLE} names another folder"
            console.print(f"{measured.path(found.device.kind)}: {reason}", style="bold red", soft_wrap=True)
            return 1
    return 1 if faults else 0
