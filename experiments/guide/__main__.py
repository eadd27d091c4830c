"""Which GPU optimization pays: python -m experiments.guide list | TOPIC | all [flags].

Explains a topic, checks each variant of the same work, counts the resources and traffic of the compiled kernels and programs,
and times them where possible: all of them on a GPU, only host code and XLA's programs on a CPU. Without --device, the device
is the GPU of this machine; on a machine without one, counts are for the H200 and times for this CPU. For one topic, stored
counts are reused if the sources are the same, and times are measured again, into runs/guide/DEVICE/guide.json; with --stored
nothing is run. `all` completes experiments/results/DEVICE/guide.json (its fields: docs/results.md) and draws guide.png, with
--quick in runs/guide/. Pictures of a topic go to runs/guide/DEVICE/. --out sets another folder for all files. `list` prints
the stored verdicts.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Any

from rich.console import Console

import kernels
from experiments.errors import UserError, nearest, run
from experiments.flags import Parser
from experiments.guide import pictures, session, show, tables, topics, verdict
from experiments.guide.topic import FIGURES, Topic
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


def completed(
    chosen: tuple[str, ...],
    options: session.Options,
    path: pathlib.Path,
    console: Console,
    asked: str | None,
    *,
    anew: bool = False,
) -> resume.Completed:
    """Do what a result file lacks of the chosen topics, or with `anew` all of them.

    Raises:
      UserError: `asked` names a device whose file was measured, and it would only be compiled for.
    """
    how, old = "measured" if options.measured else "compiled", result.earlier(path)
    if old is not None and old["measured"] and not options.measured:
        if asked is not None:
            raise UserError(f"--device: {path} was measured, and is not written over by what is only compiled; give --out")
        return resume.Completed(old, [], [])
    if old is not None and anew:
        result.write(old | {"topics": [row for row in old["topics"] if row["topic"] not in chosen]}, path)
    saved = lambda _, name: console.print(f"{options.device}: {name} {how}", highlight=False)
    found = session.run_topics([topics.load(name) for name in topics.NAMES], chosen, options, path, saved)
    if found.record["topics"]:
        result.write(verdict.judge(found.record), path)
    return found


def draw(topic: Topic, row: dict[str, Any], folder: pathlib.Path, console: Console) -> None:
    """A topic's own picture, where its counted figures are there."""
    if topic.picture is not None and any(v["compiled"] for case in row["cases"] for v in case["variants"].values()):
        pictures.draw_topic(topic, row, folder / f"{topic.name}.png")
        console.print(f"drawn: {folder / topic.name}.png\n", highlight=False)


def one_topic(topic: Topic, given: argparse.Namespace, console: Console) -> None:
    """The lesson, with the figures of each device side by side.

    Raises:
      UserError: --stored is given, and there are no stored figures.
    """
    folders: list[pathlib.Path] = []
    found: show.Found = []
    for device, measured in runs(given.device):
        options = session.Options(device, measured, given.quick, resume.deadline(given.minutes))
        stored, path = result.RESULTS / device / "guide.json", (given.out or QUICK) / device / "guide.json"
        record = verdict.read(stored) if stored.exists() else None
        row = tables.rows_of(record).get(topic.name)
        needs = {"source": session.source_digest(topic), "options": options.of_row()}
        if not (given.stored or (row is not None and not measured and needs.items() <= row.items())):
            record = completed((topic.name,), options, path, console, given.device, anew=True).record
            row = tables.rows_of(record).get(topic.name)
        if row is not None and record is not None:
            found.append((row, record))
            folders.append(path.parent)
    if not found:
        raise UserError(f"--stored: no figures of {topic.name} in {result.RESULTS} for {given.device or 'this machine'}")
    show.show(topic, found, console)
    for (row, _), folder in zip(found, folders, strict=True):
        draw(topic, row, folder, console)


def main(arguments: list[str]) -> int:
    parser = Parser("experiments.guide", __doc__, "coalescing --quick")
    parser.add_argument("topic", help=f"list, all, or one of {', '.join(topics.NAMES)}")
    parser.add_argument(
        "--device",
        help=f"{', '.join(KNOWN)}; the default is this machine's GPU, or without one h200 (compiled) and cpu (measured)",
    )
    parser.add_argument("--stored", action="store_true", help="show only the stored figures of one topic; run nothing")
    parser.add_argument("--quick", action="store_true", help="only two variants per case, and fewer rounds")
    resume.add_minutes(parser)
    parser.add_argument("--out", type=pathlib.Path, help="folder for the results, with one subfolder per device")
    given = parser.parse_args(arguments)
    console = Console()
    if given.stored and given.topic in ("list", "all"):
        raise UserError(f"--stored: is for one topic, {given.topic} given")
    if given.topic == "list":
        stored = result.RESULTS / "nvidia-h200" / "guide.json"
        rows = tables.rows_of(verdict.read(stored)) if stored.exists() else {}
        for name in topics.NAMES:
            console.print(f"[bold]{name}[/]: {topics.load(name).what}", highlight=False)
            for case in rows.get(name, {"cases": []})["cases"]:
                ways = {"measured": "measured", "compiled": FIGURES[case["figure"]].how if case["figure"] in FIGURES else ""}
                said = [f"{text} ({ways[kind]})" for kind, text in case["verdicts"].items() if text is not None]
                console.print(f"  {case['name']}: {'; '.join(said)}", highlight=False, markup=False)
        return 0
    if given.topic != "all":
        one_topic(topics.load(given.topic), given, console)
        return 0
    until = resume.deadline(given.minutes)
    for device, measured in runs(given.device):
        path = (given.out or (QUICK if given.quick else result.RESULTS)) / device / "guide.json"
        found = completed(topics.NAMES, session.Options(device, measured, given.quick, until), path, console, given.device)
        for name, row in tables.rows_of(found.record).items():
            show.show(topics.load(name), [(row, found.record)], console)
            draw(topics.load(name), row, (given.out or QUICK) / device, console)
        if found.done:
            pictures.draw(found.record, path.with_suffix(".png"))
        console.print(f"written: {path}" if found.done else f"{path}: already complete", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
