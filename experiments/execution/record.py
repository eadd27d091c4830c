"""The record of what was executed: its rows, and how they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from experiments.measuring import machine, result

Row = dict[str, Any]
NAME, FAULTS = "ptx", "ptx-faults"
PROTOCOL = (
    "the PTX that Triton compiles each kernel to, executed instruction by instruction on a CPU, beside Triton's interpreter on "
    "the same arrays; an instruction counts once a block; seconds are this CPU's and say nothing of a GPU"
)


def header(experiment: str, architecture: str) -> Row:
    """What every row of a record was obtained with."""
    versions = machine.versions("jax", "jaxlib", "triton", "numpy")
    where = {"device": architecture, "versions": versions, "date": machine.today(), "commit": machine.commit()}
    return result.begun(experiment, "executed", where) | {"protocol": PROTOCOL}


def faults(row: Row) -> list[str]:
    """All that is wrong in a row, in words."""
    return row["faults"] + [f"{kernel['kernel']}: {fault}" for kernel in row["kernels"] for fault in kernel["faults"]]


def _error(row: Row) -> str:
    if row["refused"] is not None:
        return "refused"
    return f"{row['error']:.1e}" if row["error"] is not None else "wrong" if row["faults"] else ""


def line(row: Row, architecture: str) -> str:
    """A row for the person who waits."""
    told = ", ".join(
        f"{kernel['kernel'].removesuffix('_kernel')} {kernel['instructions']:,} instructions of {kernel['blocks']} blocks"
        for kernel in row["kernels"]
    )
    verdict = "; ".join(faults(row)) or (f"refused: {row['refused']}" if row["refused"] else "no fault")
    error = f", error {row['error']:.1e}" if row["error"] is not None else ""
    return f"{row['name']}, {architecture}: {told}{error}, {row['seconds']:.0f} s: {verdict}"


def table(rows: Sequence[Row], architecture: str) -> Table:
    title = f"Compiled for {architecture} and executed; error: of the operator's results and gradients, against float64"
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("kernel", "case", "dtype", "arch"):
        shown.add_column(name, overflow="fold", no_wrap=name != "case")
    for name in ("instructions", "blocks", "error", "races", "out of bounds", "unwritten", "seconds"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        for kernel in row["kernels"] or [None]:
            case = [row["name"].removesuffix(f", {row['dtype']}"), row["dtype"], architecture]
            if kernel is None:
                shown.add_row("", *case, "", "", Text("refused", "yellow"))
                continue
            counts = [str(kernel[field]) for field in ("races", "out_of_bounds", "unwritten")]
            seen = [f"{kernel['instructions']:,}", str(kernel["blocks"]), _error(row), *counts, f"{kernel['seconds']:.1f}"]
            wrong = bool(row["faults"] or kernel["faults"])
            shown.add_row(kernel["kernel"].removesuffix("_kernel"), *case, *seen, style="bold red" if wrong else None)
    return shown


def summary(rows: Sequence[Row]) -> str:
    """One line about all rows."""
    kernels = [kernel for row in rows for kernel in row["kernels"]]
    wrong, refused = sum(bool(faults(row)) for row in rows), sum(row["refused"] is not None for row in rows)
    launches, done = (sum(kernel[field] for kernel in kernels) for field in ("launches", "instructions"))
    return (
        f"{len(rows) - wrong - refused} of {len(rows)} cases without a fault, {wrong} with one, {refused} refused; "
        f"{launches:,} launches, {done:,} instructions"
    )
