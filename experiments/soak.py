"""Disturbs training runs at random moments and checks that they recover: python -m experiments.soak --minutes 60.

Several models, in one process and in two, are killed, stopped, given a full disk, a damaged checkpoint, a second run in the
same folder, or a concurrent evaluation; the same command resumes each until it finishes, and it must finish with the
parameters of an undisturbed run. A run that hangs, prints a traceback, or ends with a status that no fault explains or with
other parameters is a finding. --seed determines the faults, but not the exact moment within a step or a save. Ctrl-C ends it
and keeps the findings. Writes experiments/results/cpu/soak.json, or DIR/cpu/soak.json with --out DIR.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import pathlib
import random
import shutil
import sys
import time
from collections.abc import Iterator
from typing import Any

from experiments.errors import UserError, nearest, run
from experiments.flags import SEED, Parser, number, output
from experiments.measuring import result
from experiments.measuring.result import write_json
from experiments.soaking import faults
from experiments.soaking.cases import CASES, FLAGS, JUDGE, Case, write_data
from experiments.soaking.faults import FINISH, KINDS, STARTUP, Fault
from experiments.soaking.processes import Start, end_all, sha256

FOLDER = pathlib.Path("runs", "soak")
MOST_FAULTS = 4  # of one run
COLUMNS = ("KILL", "TERM", "INT", "HUP", "CONT", "STOP", "disk", "byte", "2nd", "eval")  # of KINDS, on a terminal
Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Whole:
    """A case that nobody disturbed: its parameters' digest, steps, and seconds, of all and up to the first checkpoint."""

    sha256: str
    steps: int
    seconds: float
    startup: float


def undisturbed(case: Case, folder: pathlib.Path) -> Whole:
    """Run a case from its start to its end.

    Raises:
      UserError: it does not end well; there is nothing to compare with then.
    """
    workdir = folder / case.name
    start = Start(case.commands(workdir), workdir, "whole")
    start.wait(faults.RUN_SECONDS, lambda: bool(start.saved()))
    startup = time.monotonic() - start.begun
    start.wait(faults.RUN_SECONDS)
    seconds, found = time.monotonic() - start.begun, sha256(workdir)
    start.kill()
    if found is None or any(start.statuses):
        raise UserError(f"{case.name}: the undisturbed run ended with {start.statuses}: {' '.join(start.tail())}")
    return Whole(found, start.newest(), round(seconds, 1), round(startup, 1))


@dataclasses.dataclass
class Disturbed:
    """One run with faults: those that were injected, how often it was started, and what was wrong."""

    faults: list[Fault] = dataclasses.field(default_factory=list)
    starts: int = 0
    equal: bool = False
    problems: list[str] = dataclasses.field(default_factory=list)
    log: list[str] = dataclasses.field(default_factory=list)

    def note(self, problems: list[str], start: Start) -> None:
        if problems:
            self.problems += problems
            self.log = self.log or start.tail()


def disturb(case: Case, whole: Whole, workdir: pathlib.Path, planned: list[Fault], draw: random.Random) -> Disturbed:
    """Start a run, disturb it, and continue it until it ends."""
    found, waiting = Disturbed(), list(planned)
    while found.starts <= len(planned) + 1:
        found.starts += 1
        start = Start(case.commands(workdir), workdir, str(found.starts))
        allowed, ending, limit = {0}, False, faults.RUN_SECONDS
        while waiting and not ending and faults.reach(start, waiting[0], whole.steps, whole.startup, draw):
            fault = waiting.pop(0)
            found.faults.append(fault)
            label = f"{found.starts}-{len(found.faults)}-{fault.kind.replace(' ', '-')}"
            ending, statuses, problems = faults.inject(start, fault, case, label, draw)
            allowed |= statuses
            found.note(problems, start)
            if ending:
                limit = faults.END_SECONDS
                some = len(fault.victims) < case.processes
                if some and fault.moment == STARTUP and not start.wait(faults.JOIN_SECONDS):
                    for process in start.processes:  # as a scheduler does where one of a job's processes did not start
                        process.terminate()
                    allowed |= {-15, 143}
        hangs = not start.wait(limit)
        statuses_seen = start.statuses
        start.kill()
        if hangs:
            found.note([f"still there {limit} s later, statuses {statuses_seen}"], start)
            break
        found.note(start.problems(allowed), start)
        if start.statuses == [0] * case.processes or (not ending and allowed == {0}):
            break  # it ended, or nobody disturbed it and it did not end well
    found.equal = sha256(workdir) == whole.sha256
    found.note([] if found.equal else [f"ended with {sha256(workdir)}, undisturbed {whole.sha256}"], start)
    return found


def counted(case: Case, whole: Whole) -> Record:
    """A case's part of the result file, with nothing done yet."""
    figures: Record = {"model": case.model, "processes": case.processes, "sha256": whole.sha256}
    figures |= {"undisturbed_seconds": whole.seconds, "runs": 0, "equal": 0, "starts": 0}
    return figures | {"faults": {kind: {"injected": 0, "equal": 0} for kind in KINDS}, "moments": {}}


def add(row: Record, found: Disturbed) -> None:
    """Count a disturbed run."""
    row["runs"] += 1
    row["starts"] += found.starts
    row["equal"] += found.equal
    for fault in found.faults:
        row["faults"][fault.kind]["injected"] += 1
        row["faults"][fault.kind]["equal"] += found.equal
        row["moments"][fault.moment] = row["moments"].get(fault.moment, 0) + 1


def soak(cases: list[Case], seed: int, seconds: float, folder: pathlib.Path, save: Any) -> Record:
    """Disturb the cases in turn for so long; `save` is called with the record after each run."""
    record: Record = {"protocol": protocol(), "seed": seed, "seconds": 0.0, "stopped": False, "cases": {}, "findings": []}
    begun = time.monotonic()
    wholes: dict[str, Whole] = {}
    plans: dict[str, Iterator[Fault]] = {case.name: faults.plan(case, seed) for case in cases}
    try:
        # The run that judges a GAN first, whatever was asked for.
        for case in dict.fromkeys([Case(JUDGE, 1), *cases]) if any("gan" in case.model for case in cases) else cases:
            wholes[case.name] = undisturbed(case, folder)
            print(f"undisturbed {case.name}: {wholes[case.name].seconds} s, {wholes[case.name].sha256[:12]}", flush=True)
        record["cases"] = {case.name: counted(case, wholes[case.name]) for case in cases}
        for count, case in enumerate(itertools.cycle(cases)):
            if time.monotonic() - begun > seconds:
                break
            draw = random.Random(f"{seed} {case.name} {count}")
            planned = list(itertools.islice(plans[case.name], draw.randint(2, MOST_FAULTS)))
            planned.sort(key=lambda fault: fault.moment == FINISH)
            workdir = folder / f"{count:04}-{case.name}"
            found = disturb(case, wholes[case.name], workdir, planned, draw)
            plans[case.name] = itertools.chain(planned[len(found.faults) :], plans[case.name])  # those that came too late
            add(record["cases"][case.name], found)
            told = ", ".join(f"{fault.kind} ({fault.moment})" for fault in found.faults) or "no fault in time"
            print(f"{count} {case.name}: {told}: {'; '.join(found.problems) or 'equal'}", flush=True)
            if found.problems:
                said = [f"{fault.kind}, {fault.moment}, of {fault.victims}" for fault in found.faults]
                finding = {"run": count, "case": case.name, "faults": said, "problems": found.problems, "log": found.log}
                record["findings"].append(finding)
            else:
                shutil.rmtree(workdir, ignore_errors=True)
                for log in folder.glob(f"{workdir.name}-*.log"):
                    log.unlink()
            record["seconds"] = round(time.monotonic() - begun)
            save(record)
    except KeyboardInterrupt:
        record["stopped"] = True
    finally:
        end_all()
    record["seconds"] = round(time.monotonic() - begun)
    return record


def protocol() -> str:
    return (
        f"two to {MOST_FAULTS} faults a run, of all kinds in turn, done to one process or to all; an end within "
        f"{faults.END_SECONDS} s of a fault and {faults.RUN_SECONDS} s without; where one of two processes was lost at "
        f"startup, the other is ended by SIGTERM after {faults.JOIN_SECONDS} s"
    )


def table(record: Record) -> str:
    """Times injected and, of these, in runs that ended equal, for each case and kind of fault; 79 columns."""
    lines = [f"{'':<17}" + "".join(f"{name:>6}" for name in COLUMNS)]
    for name, row in record["cases"].items():
        cells = (row["faults"][kind] for kind in KINDS)
        shown = (f"{cell['equal']}/{cell['injected']}" if cell["injected"] else "-" for cell in cells)
        lines.append(f"{name:<17}" + "".join(f"{cell:>6}" for cell in shown))
    return "\n".join(lines)


def sentence(record: Record) -> str:
    """What came of it."""
    rows = record["cases"].values()
    total = collections.Counter(runs=0, equal=0)
    for row in rows:
        total.update(runs=row["runs"], equal=row["equal"], faults=sum(cell["injected"] for cell in row["faults"].values()))
    ended = f"{total['equal']} of {total['runs']} runs ended with the parameters of an undisturbed run"
    findings = len(record["findings"])
    return (
        f"{total['faults']} faults in {record['seconds'] / 60:.0f} minutes, seed {record['seed']}: {ended}; "
        f"{findings or 'no'} finding{'s' * (findings != 1)}."
    )


def main(arguments: list[str]) -> int:
    parser = Parser("experiments.soak", __doc__, "--minutes 5 --models lenet5 lstm_lm --seed 1")
    parser.add_argument("--minutes", type=number(0, 10_000, above=True), default=60, help="start no run after this time (60)")
    parser.add_argument("--seed", type=SEED, default=0, help="determines the faults (0)")
    parser.add_argument("--models", nargs="+", metavar="MODEL", default=[], help=f"some of {', '.join(FLAGS)} (all)")
    parser.add_argument("--processes", type=int, choices=(1, 2), help="only runs in one process, or only in two")
    parser.add_argument("--out", type=output, help="another folder for the result file")
    given = parser.parse_args(arguments)
    for model in given.models:
        if model not in FLAGS:
            raise UserError(nearest("--models", model, FLAGS))
    models, counts = given.models or FLAGS, (given.processes,) if given.processes else (1, 2)
    cases = [case for case in CASES if case.model in models and case.processes in counts]
    if not cases:
        raise UserError(f"--processes: {given.processes} given, {', '.join(given.models)} runs in one process only here")
    folder = FOLDER / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    write_data(folder)
    record = soak(cases, given.seed, given.minutes * 60, folder, lambda record: write_json(folder / "soak.json", record))
    print(table(record))
    if given.out:
        result.RESULTS = given.out
    print(result.save("soak", record))
    print(sentence(record))
    if not record["findings"]:
        shutil.rmtree(folder)
    if record["stopped"]:
        return 130
    return 1 if record["findings"] else 0


if __name__ == "__main__":
    sys.exit(run(main))
