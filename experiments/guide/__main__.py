"""Which GPU optimization pays: python -m experiments.guide list | TOPIC | all [flags].

Explains a topic, checks each way of doing the same work, counts what the compiled kernels and programs take and move, and
times them where that can be done: all of them on a GPU; on a CPU what a CPU can honestly show. Without --device that is the
GPU at hand, or, on a machine without one, a count for the H200 and a measurement of this CPU. Writes guide.json (its
fields: docs/results.md) and guide.png to experiments/results/DEVICE/, with --quick to runs/guide/DEVICE/, or to
--out/DEVICE/. What the file holds of the same sources is not done again.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import sys
import time

from rich.console import Console

import kernels
from experiments.benchmarks.result import RESULTS
from experiments.comparison import record as comparison
from experiments.errors import UserError, nearest, run
from experiments.guide import pictures, record, running, session, show
from experiments.inspect import DEVICES

BEGUN = time.monotonic()
QUICK = pathlib.Path("runs") / "guide"
KNOWN = {**DEVICES, **{kind: kind for kind in DEVICES.values()}, "cpu": "cpu"}


def runs(asked: str | None) -> list[tuple[str, bool]]:
    """Devices, and whether they are measured."""
    here = kernels.device()
    if asked is not None and asked not in KNOWN and asked != here.kind:
        raise UserError(nearest("--device", asked, [*KNOWN, here.kind]))
    if asked is None:
        return [(here.kind, True)] if here.platform != "cpu" else [("nvidia-h200", False), ("cpu", True)]
    kind = KNOWN.get(asked, asked)
    if kind == "cpu" and here.platform != "cpu":
        raise UserError("--device: cpu given, but JAX runs on a GPU here; JAX_PLATFORMS=cpu makes it run on the CPU")
    return [(kind, kind == here.kind)]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.guide", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("topic", help=f"list, all, or one of {', '.join(session.NAMES)}")
    parser.add_argument(
        "--device", help=f"{', '.join(KNOWN)}; the GPU at hand if not given, else h200 (compiled) and cpu (measured)"
    )
    parser.add_argument("--quick", action="store_true", help="only two ways of each case, and few rounds")
    parser.add_argument("--minutes", type=float, help="begin no topic after so long; the same command goes on from there")
    parser.add_argument("--out", type=pathlib.Path, help="folder for the results, one folder a device in it")
    given = parser.parse_args(arguments)
    console = Console()
    if given.topic == "list":
        for name in session.NAMES:
            console.print(f"{name:24}{session.load(name).what}", highlight=False)
        return 0
    names = list(session.NAMES) if given.topic == "all" else [session.load(given.topic).name]
    if given.minutes is not None and not (given.minutes > 0 and math.isfinite(given.minutes)):
        raise UserError(f"--minutes: {given.minutes:g} given, a number above 0 is needed")
    deadline = BEGUN + 60 * given.minutes if given.minutes else math.inf
    for device, measured in runs(given.device):
        folder = (given.out or (QUICK if given.quick else RESULTS)) / device
        folder.mkdir(parents=True, exist_ok=True)
        path, options = folder / "guide.json", running.Options(device, measured, given.quick, deadline)
        old = comparison.earlier(path, record.read)
        kept = old is not None and old["measured"] and not measured
        if kept and given.device is not None:
            raise UserError(f"--device: {path} was measured, and is not written over by what is only compiled; give --out")
        found, done = old, []
        for found, finished in () if kept else session.run_topics(names, options, old):
            if finished is not None:
                record.write(found, path)
                done.append(finished)
                console.print(f"{device}: {finished} {'measured' if measured else 'compiled'}", highlight=False)
        assert found is not None
        if not kept and found["topics"]:
            record.write(found, path)  # verdicts may be worded anew where nothing was done
        rows = {row["topic"]: row for row in found["topics"]}
        for topic in names:
            if topic in rows:
                show.show(session.load(topic), rows[topic], found, console)
        if done:
            pictures.draw(found, folder / "guide.png")
        console.print(f"written: {path}" if done else f"{path}: nothing had to be done again", highlight=False)
        if left := [name for name in names if name not in rows]:
            console.print(f"stopped for time; left: {', '.join(left)}. The same command goes on with them.")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
