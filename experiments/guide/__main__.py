"""Which GPU optimization pays: python -m experiments.guide list | TOPIC | all [flags].

Explains a topic, checks each variant of the same work, counts what the compiled kernels and programs take and move, and
times them where that can be done: all of them on a GPU; on a CPU what a CPU can honestly show. Without --device that is the
GPU at hand, or, on a machine without one, a count for the H200 and a measurement of this CPU. Writes guide.json (its
fields: docs/results.md) and guide.png to experiments/results/DEVICE/, with --quick to runs/guide/DEVICE/, or to
--out/DEVICE/; a topic's own picture to runs/guide/DEVICE/ or --out/DEVICE/. What the file holds of the same sources is not
done again. `list` prints the stored verdicts.
"""

from __future__ import annotations

import pathlib
import sys

from rich.console import Console

import kernels
from experiments.errors import UserError, nearest, run
from experiments.flags import Parser
from experiments.guide import pictures, session, show, tables, topics, verdict
from experiments.guide.topic import FIGURES
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
    parser = Parser("experiments.guide", __doc__, "coalescing --quick")
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
        stored = result.RESULTS / "nvidia-h200" / "guide.json"
        rows = tables.rows_of(verdict.read(stored)) if stored.exists() else {}
        for name in topics.NAMES:
            console.print(f"[bold]{name}[/]: {topics.load(name).what}", highlight=False)
            for case in rows.get(name, {"cases": []})["cases"]:
                ways = {"measured": "measured", "compiled": FIGURES[case["figure"]].how if case["figure"] in FIGURES else ""}
                said = [f"{text} ({ways[kind]})" for kind, text in case["verdicts"].items() if text is not None]
                console.print(f"  {case['name']}: {'; '.join(said)}", highlight=False, markup=False)
        return 0
    every = [topics.load(name) for name in topics.NAMES]
    chosen = topics.NAMES if given.topic == "all" else (topics.load(given.topic).name,)
    until = resume.deadline(given.minutes)
    for device, measured in runs(given.device):
        path = (given.out or (QUICK if given.quick else result.RESULTS)) / device / "guide.json"
        how, old = "measured" if measured else "compiled", result.earlier(path)
        if old is not None and old["measured"] and not measured:
            if given.device is not None:
                raise UserError(f"--device: {path} was measured, and is not written over by what is only compiled; give --out")
            found = resume.Completed(old, [], [])
        else:
            options = session.Options(device, measured, given.quick, until)
            saved = lambda _, name, device=device, how=how: console.print(f"{device}: {name} {how}", highlight=False)
            found = session.run_topics(every, chosen, options, path, saved)
            if found.record["topics"]:
                result.write(verdict.judge(found.record), path)
        rows = {row["topic"]: row for row in found.record["topics"]}
        for topic in every:
            if topic.name in rows and topic.name in chosen:
                show.show(topic, rows[topic.name], found.record, console)
                if topic.picture is not None:
                    drawing = (given.out or QUICK) / device / f"{topic.name}.png"
                    pictures.draw_topic(topic, rows[topic.name], drawing)
                    console.print(f"drawn: {drawing}\n", highlight=False)
        if found.done:
            pictures.draw(found.record, path.with_suffix(".png"))
        console.print(f"written: {path}" if found.done else f"{path}: nothing had to be done again", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
