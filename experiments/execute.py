"""Executes the compiled code of the kernels, without a GPU: python -m experiments.execute [OPERATOR ...] [--arch sm_90].

Compares every launch with Triton's interpreter, and the results and gradients of every operator with float64; looks for races,
out-of-bounds accesses and reads of unwritten memory. With --faults it injects faults into the code instead, and reports how
many of them are found. Writes experiments/results/ptx/sm_80.json or faults-sm_80.json after each case; cases already there
from the same sources are not repeated. The exit status is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from experiments.errors import UserError, nearest, run
from experiments.execution import cases, large, plans, record, running, seeding
from experiments.execution.case import GPUS, Case
from experiments.flags import Parser, whole
from experiments.measuring import result, resume, sources
from kernels.commands.dtypes import DTYPES

GROUPS: dict[str, Callable[[], list[Case]]] = {
    "usual": cases.usual,
    "special": cases.special,
    "candidates": plans.candidates,
    "recurrent": plans.real,
    "large": large.cases,
}
FOLDER = result.RESULTS / record.NAME


def digest(maker: str, operator: str) -> str:
    """Of all that a row of this operator depends on but its case, which its options name."""
    return sources.digest(maker, f"kernels.{operator}.api")


def name_of(case: Case, dtype: str) -> str:
    return f"{case.operator} {case.name}, {dtype}"


def parts(chosen: Sequence[Case], dtypes: Sequence[str], architecture: str, seeds: int) -> list[resume.Part]:
    """A part for each case and dtype, in this order: the dtypes of a case share its reference."""
    found = []
    for case in chosen:
        for dtype in case.dtypes:
            if dtype in dtypes:
                made = large if case.group == "large" else running
                options = {"dtype": dtype, "seeds": seeds, "case": case.digest}
                needs = {"source": digest(made.__name__, case.operator), "options": options}
                needs |= {"operator": case.operator, "group": case.group, "dtype": dtype}
                work = functools.partial(made.run, case, dtype, architecture, seeds)
                found.append(resume.Part(name_of(case, dtype), needs, work))
    return found


def perform(
    every: Sequence[resume.Part],
    wanted: Collection[str],
    path: pathlib.Path,
    head: dict[str, Any],
    until: float,
    console: Console,
    line: Callable[[dict[str, Any]], str],
    wrong: Callable[[dict[str, Any]], bool] = lambda row: False,
) -> list[dict[str, Any]]:
    """Run the wanted parts that the result file lacks, and write it after each; the rows of those that are done.

    Args:
      every: the parts of all rows that the file may have.
      wanted: names of parts.
    """
    columns = (TextColumn("{task.completed}/{task.total}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=len(wanted))

        def announced(part: resume.Part) -> resume.Part:
            def work() -> dict[str, Any]:
                progress.update(bar, description=part.name)
                return part.run()

            return resume.Part(part.name, part.needs, work)

        def saved(found: dict[str, Any], name: str) -> None:
            progress.advance(bar)
            row = next(row for row in found["cases"] if row["name"] == name)
            if not console.is_terminal or wrong(row):
                console.print(line(row), markup=False, highlight=False, soft_wrap=True)

        announcing = [announced(part) for part in every]
        done = resume.complete(path, head, announcing, wanted.__contains__, until=until, saved=saved)
    return [row for row in done.record["cases"] if row["name"] in wanted and row["name"] not in done.left]


def chosen_cases(operators: Sequence[str], groups: Sequence[str]) -> list[Case]:
    every = [case for group in GROUPS for case in (GROUPS[group]() if group in groups else ())]
    known = sorted({case.operator for case in every})
    for name in operators:
        if name not in known:
            raise UserError(nearest("OPERATOR", name, known))
    return [case for case in every if not operators or case.operator in operators]


def checked(flag: str, given: Sequence[str], known: Sequence[str]) -> Sequence[str]:
    for name in given:
        if name not in known:
            raise UserError(nearest(flag, name, known))
    return given


def wide(console: Console) -> Console:
    """As wide as the table needs where the output is not a terminal."""
    return console if console.is_terminal else Console(width=180)


def main(arguments: list[str]) -> int:
    parser = Parser("experiments.execute", __doc__, "max_pool --dtype float32")
    parser.add_argument("operators", nargs="*", metavar="OPERATOR", help="operators to execute (all)")
    parser.add_argument("--arch", default="sm_80", help=f"one of {', '.join(GPUS)} (%(default)s)")
    parser.add_argument("--cases", nargs="+", default=["all"], metavar="GROUP", help=f"all, or some of {', '.join(GROUPS)}")
    parser.add_argument("--dtype", nargs="+", default=list(DTYPES), help=f"some of {', '.join(DTYPES)}")
    parser.add_argument(
        "--seeds", type=whole(1, 10_000), default=1, help="block orders per launch with a barrier across the grid (1)"
    )
    parser.add_argument(
        "--faults", type=whole(0, 1_000_000), default=0, metavar="N", help="inject up to N faults of each kind instead"
    )
    resume.add_minutes(parser)
    parser.add_argument("--out", type=pathlib.Path, default=FOLDER, help="folder for the results (experiments/results/ptx)")
    given = parser.parse_args(arguments)
    (architecture,) = checked("--arch", [given.arch], list(GPUS))
    groups = list(GROUPS) if "all" in given.cases else checked("--cases", given.cases, [*GROUPS, "all"])
    checked("--dtype", given.dtype, DTYPES)
    capability = (int(architecture[3:-1]), int(architecture[-1]))
    chosen = [case for case in chosen_cases(given.operators, groups) if case.least <= capability]
    console = wide(Console())
    if given.faults:
        return seed(given, console)
    head, path = record.header(record.NAME, architecture), given.out / f"{architecture}.json"
    told, wrong = lambda row: record.line(row, architecture), lambda row: bool(record.faults(row))
    possible = [case for make in GROUPS.values() for case in make() if case.least <= capability]
    every = parts(possible, list(DTYPES), architecture, given.seeds)
    wanted = {part.name for part in parts(chosen, given.dtype, architecture, given.seeds)}
    rows = perform(every, wanted, path, head, resume.deadline(given.minutes), console, told, wrong)
    console.print(record.table(rows, architecture))
    console.print(f"{record.summary(rows)}\nwritten: {path}", highlight=False, soft_wrap=True)
    return 1 if any(record.faults(row) for row in rows) else 0


def seed(given: argparse.Namespace, console: Console) -> int:
    """--faults."""
    every, wanted = [], set()
    for case in seeding.cases():
        name = name_of(case, seeding.DTYPE)
        options = {"faults": given.faults, "case": case.digest}
        needs = {"source": digest(seeding.__name__, case.operator), "options": options}
        needs |= {"operator": case.operator, "dtype": seeding.DTYPE}
        work = functools.partial(seeding.run, case, seeding.DTYPE, given.arch, given.faults)
        every.append(resume.Part(name, needs, work))
        if not given.operators or case.operator in given.operators:
            wanted.add(name)
    head, path = record.header(record.FAULTS, given.arch), given.out / f"faults-{given.arch}.json"
    told = lambda row: seeding.line(row, given.arch)
    rows = perform(every, wanted, path, head, resume.deadline(given.minutes), console, told)
    console.print(seeding.table(rows, given.arch))
    missed = [text for seen in seeding.by_kind(rows).values() for text in seen.missed]
    for text in missed:
        console.print(f"not found: {text}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"written: {path}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
