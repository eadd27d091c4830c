"""Puts faults into the code of launches that are right, executes them, and counts those that are found.

Each kernel is taken once for an architecture, at a small shape, products also with tiles that are large enough for wgmma.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from experiments.execution import programs, running
from experiments.execution.case import Case
from experiments.execution.cases import recurrent
from experiments.execution.faults import Fault, faults, opposite, spread, watched
from experiments.execution.flow import Flow
from kernels.batch_norm_act import config as norm_config
from kernels.commands.cases import GATES, batch_norm_act, lenet5, linear_act, local_response_norm, loss, max_pool, mlp
from kernels.linear_act import config as linear_config
from kernels.runtime import devices
from kernels.verification import aot, ptx
from kernels.verification.ptx import errors

DTYPE = "bfloat16"
# By what was raised. A report's words say which problem it lists.
ENDED = {
    errors.OutOfBoundsError: "out of bounds",
    errors.MisalignedError: "misaligned",
    errors.ReadOnlyError: "write to an input",
    errors.HangError: "hang",
    errors.DivergenceError: "divergence",
    errors.UndefinedRegisterError: "undefined register",
}
LISTED = {"race": "race", "at once": "race", "nobody wrote": "unwritten memory read", "": "missing fence or wait"}
Tolerance = Callable[[np.dtype], float]
ORDERS = 3  # of the blocks of a launch with a barrier across its grid: what one block must wait for may have happened already
WRONG, SAME = "wrong result", "same results"


def cases() -> list[Case]:
    """Small, but with so many blocks that each barrier has something to order, and with warps enough that it is not one warp's
    own."""
    found = [
        max_pool((2, 7, 5, 3), padding="SAME"),
        local_response_norm((2, 3, 3, 11), alpha=1.0),
        loss(3, 4500, 0.1),
        linear_act(33, 150, 140, "gelu", dropout_rate=0.5, dropout_seed=0),
        mlp(35, 20, 33, 70, "relu", "tanh"),
        lenet5(3, 1, 10),
        *(recurrent(cell, 16, 3, 5, 80 if cell == "rnn" else 24, 2, lengths=[3, 2, 1, 3] * 4) for cell in GATES),
    ]
    # Two groups of blocks that add up; a tile that wgmma takes.
    norm = batch_norm_act((2300, 24), "gelu", residual=True, running=True)
    cut = (norm, norm_config.Config(32, 128, 8, 0)), (linear_act(140, 200, 72), linear_config.Config(128, 64, 64, 4, 3))
    return [Case("faults", what, dtypes=(DTYPE,)) for what in found] + [
        Case("faults", what, "blocks as a candidate", (what.operator, dataclasses.asdict(config)), dtypes=(DTYPE,))
        for what, config in cut
    ]


@dataclasses.dataclass
class Seeded:
    """What became of the faults of one kind in a kernel.

    Attributes:
      places: where it could be put in.
      tried: where it was.
      how: what they were found by, each by all that it was found by.
      cannot_show: why those that were not found cannot show in this launch.
      missed: those that were not found and for which there is no such reason.
    """

    places: int = 0
    tried: int = 0
    found: int = 0
    how: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    cannot_show: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    missed: list[str] = dataclasses.field(default_factory=list)


class Seeder:
    """One launch, into whose text faults are put."""

    def __init__(self, ready: running.Ready, here: devices.Device, tolerance: Tolerance):
        compiled = aot.compiled(ready.call, here.compute_capability)
        self.ready, self.tolerance, self.shared_memory = ready, tolerance, compiled.shared_memory
        self.lines = compiled.ptx.splitlines()
        self.flow = Flow(self.lines)
        self.right, report = ready.execute(ptx.Program(compiled.ptx), self.shared_memory)
        if report.problems or running.wrong(self.right, ready.expected, tolerance):
            raise ptx.ProblemsError(f"{ready.call.kernel.fn.__name__} is not right without a fault: {report.summary()}")
        # Of a block: a run that hangs ends soon.
        self.limit = 4 * report.instructions + 2000

    def _run(self, text: str, seed: int = 0) -> tuple[list[np.ndarray], ptx.Report]:
        return self.ready.execute(ptx.Program(text), self.shared_memory, limit=self.limit, seed=seed)

    def found_by(self, fault: Fault) -> set[str]:
        """What a fault is found by, in one order of the blocks or in another; `SAME` alone where every result is the same to
        the bit, nothing where they are right."""
        text, same = fault.put_into(self.lines), True
        for seed in range(ORDERS if self.ready.call.cooperative else 1):
            try:
                results, report = self._run(text, seed)
            except errors.ExecutionError as error:
                return {ENDED.get(type(error), type(error).__name__)}
            found = {next(word for mark, word in LISTED.items() if mark in what) for what, _ in report.problems}
            if running.wrong(results, self.ready.expected, self.tolerance):
                found.add(WRONG)
            if found:
                return found
            same &= all(a.tobytes() == b.tobytes() for a, b in zip(results, self.right, strict=True))
        return {SAME} if same else set()

    def comes_by(self, line: int, guard: str = "") -> bool:
        """Whether a thread for which `guard` holds comes to a line in this launch."""
        try:
            self._run(watched(self.lines, line, guard))
        except errors.OutOfBoundsError:
            return True
        return False

    def why_not(self, fault: Fault, same: bool) -> str | None:
        """Why a fault that was not found cannot show here; None where that is not known."""
        if not self.comes_by(fault.line, "" if fault.kind.startswith("predicate") else fault.was.guard):
            return "no thread executes the instruction in this launch"
        if fault.kind.startswith("predicate"):
            if not self.comes_by(fault.line, opposite(fault.was.guard)):
                return "the predicate is true of every thread in this launch"
            if same:
                return "what it holds back is inside the arrays, and changes no result"
        if fault.kind.startswith("address") and same:
            return "what it loads or stores instead is the same, or not used"
        return self.flow.redundant(fault.line)

    def kinds(self, most: int) -> dict[str, Seeded]:
        """What became of up to `most` faults of each kind."""
        places: dict[str, list[Fault]] = {}
        for fault in faults(self.lines):
            places.setdefault(fault.kind, []).append(fault)
        return {kind: self._kind(of, most) for kind, of in places.items()}

    def _kind(self, places: Sequence[Fault], most: int) -> Seeded:
        seeded = Seeded(places=len(places))
        for fault in spread(places, most):
            seeded.tried += 1
            found = self.found_by(fault)
            if found - {SAME}:
                seeded.found += 1
                seeded.how.update(found)
            elif (reason := self.why_not(fault, SAME in found)) is not None:
                seeded.cannot_show[reason] += 1
            else:
                seeded.missed.append(f"line {fault.line + 1}: {fault.was}")
        return seeded


def run(case: Case, dtype: str, architecture: str, most: int) -> dict[str, Any]:
    """A case's entry in the record."""
    arguments = case.draw(dtype)
    with running.executing(case, dtype, architecture) as executed:
        programs.results(case, arguments)
    kernels, taken = [], set()
    for ready in executed.ready:
        name = ready.call.kernel.fn.__name__
        if name not in taken:  # once each
            taken.add(name)
            seeder = Seeder(ready, executed.here, lambda output: case.launch_tolerance(dtype, output))
            kinds = {kind: vars(seeded) for kind, seeded in seeder.kinds(most).items()}
            kernels.append({"kernel": name, "kinds": kinds})
    return {"kernels": kernels}


def line(row: dict[str, Any], architecture: str) -> str:
    """A row for the person who waits."""
    told = []
    for kernel in row["kernels"]:
        kinds = kernel["kinds"].values()
        tried, found = (sum(kind[field] for kind in kinds) for field in ("tried", "found"))
        hidden, missed = sum(sum(k["cannot_show"].values()) for k in kinds), sum(len(k["missed"]) for k in kinds)
        told.append(f"{kernel['kernel']} {found} of {tried} found, {hidden} cannot show, {missed} missed")
    return f"{row['name']}, {architecture}: {'; '.join(told)}, {row['seconds']:.0f} s"


def by_kind(rows: Sequence[dict[str, Any]]) -> dict[str, Seeded]:
    """All rows together, by kind of fault; of what was missed, with the kernel."""
    found: dict[str, Seeded] = {}
    for row in rows:
        for kernel in row["kernels"]:
            for kind, seen in kernel["kinds"].items():
                total = found.setdefault(kind, Seeded())
                for field in ("places", "tried", "found"):
                    setattr(total, field, getattr(total, field) + seen[field])
                total.how.update(seen["how"])
                total.cannot_show.update(seen["cannot_show"])
                total.missed += [f"{row['operator']} {kernel['kernel']}, {missed}" for missed in seen["missed"]]
    return found


def table(rows: Sequence[dict[str, Any]], architecture: str) -> Table:
    shown = Table(title=f"Faults put into the code for {architecture}", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("fault", "found by", "cannot show"):
        shown.add_column(name, overflow="fold")
    for name in ("put in", "found", "cannot show", "missed"):
        shown.add_column(name, justify="right", no_wrap=True)
    for kind, seen in by_kind(rows).items():
        counts = (seen.tried, seen.found, sum(seen.cannot_show.values()), len(seen.missed))
        shown.add_row(kind, in_words(seen.how), in_words(seen.cannot_show), *map(str, counts))
    return shown


def in_words(counts: collections.Counter[str]) -> str:
    return ", ".join(f"{n} {what}" for what, n in counts.most_common())
