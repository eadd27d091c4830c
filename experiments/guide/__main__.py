"""Which GPU optimization pays: python -m experiments.guide list | TOPIC | all [flags].

Explains a topic, checks each variant of the same work, counts what the compiled kernels and programs take and move, and
times them where that can be done: all of them on a GPU; on a CPU what a CPU can honestly show. Without --device that is the
GPU at hand, or, on a machine without one, a count for the H200 and a measurement of this CPU. Writes guide.json (its
fields: docs/results.md) and guide.png to experiments/results/DEVICE/, with --quick to runs/guide/DEVICE/, or to
--out/DEVICE/. What the file holds of the same sources is not done again.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import sys
from typing import Any

from rich.console import Console

import kernels
from experiments.errors import UserError, nearest, run
from experiments.guide import pictures, session, show, topics, verdict
from experiments.measuring import device_model, result, resume

QUICK = pathlib.Path("runs") / "guide"
KNOWN = {**device_model.NAMES, **{kind: kind for kind in device_model.MODELS}, "cpu": "cpu"}


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
    parser.add_argument("topic", help=f"list, all, or one of {', '.join(topics.NAMES)}")
    parser.add_argument(
        "--device", help=f"{', '.join(KNOWN)}; the GPU at hand if not given, else h200 (compiled) and cpu (measured)"
    )
    parser.add_argument("--quick", action="store_true", help="only two variants of each case, and few rounds")
    resume.add_minutes(parser)
    parser.add_argument("--out", type=pathlib.Path, help="folder for the results, one folder a device in it")
    given = parser.parse_args(arguments)
    console = Console()
    if given.topic == "list":
        for name in topics.NAMES:
            console.print(f"{name:24}{topics.load(name).what}", highlight=False)
        return 0
    chosen = [topics.load(name) for name in (topics.NAMES if given.topic == "all" else [given.topic])]
    until = resume.deadline(given.minutes)
    for device, measured in runs(given.device):
        path = (given.out or (QUICK if given.quick else result.RESULTS)) / device / "guide.json"
        options = session.Options(device, measured, given.quick, until)
        done: list[str] = []
        left: list[str] = []
        old = result.earlier(path)
        kept = old is not None and old["measured"] and not measured
        if kept and given.device is not None:
            raise UserError(f"--device: {path} was measured, and is not written over by what is only compiled; give --out")

        def save(name: str, found: dict[str, Any], path: pathlib.Path, done: list[str], how: str) -> None:
            result.write(verdict.judge(found), path)
            done.append(name)
            console.print(f"{path.parent.name}: {name} {how}", highlight=False)

        found = old
        if not kept:
            saving = functools.partial(save, path=path, done=done, how="measured" if measured else "compiled")
            found, left = session.run_topics(chosen, topics.NAMES, options, old, saving)
            if found["topics"]:
                result.write(verdict.judge(found), path)  # verdicts may be worded anew where nothing was done
        assert found is not None
        rows = {row["topic"]: row for row in found["topics"]}
        for topic in chosen:
            if topic.name in rows:
                show.show(topic, rows[topic.name], found, console)
        if done:
            pictures.draw(found, path.with_suffix(".png"))
        console.print(f"written: {path}" if done else f"{path}: nothing had to be done again", highlight=False)
        if left:
            console.print(resume.stopped(left))
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
