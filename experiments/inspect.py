"""Counts a model's kernels and bytes by kind of work, compiled for a GPU but not run: python -m experiments.inspect MODEL.

Compiles a training step (or inference) for a GPU that need not be present, with XLA alone and with the hand-written kernels,
and prints and draws for both: kernels launched, bytes transferred and the time the memory needs for them, by kind of work.
Figures are compiled, not measured; they are those of `python -m experiments.comparison.compiled models`, whose row is shown
where it is up to date with the sources. Writes the row and the picture to runs/inspect/, or to --out.

With --devices N, XLA compiles the training step for N GPUs, eight per host, with the batch size per GPU. It prints their
collectives, which of these can overlap computation, and memory, with the state replicated and sharded within a host; and,
modelled, from which batch size the step scales. This writes a record and no picture.
"""

from __future__ import annotations

import pathlib
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

import zoo
from experiments.comparison import compiled, sharded
from experiments.comparison.models import ModelCase, zoo_case
from experiments.errors import UserError, run
from experiments.flags import Parser, whole
from experiments.measuring import device_model, interconnect, result
from experiments.measuring.pictures import BETTER, PALE, XLA

COLOURS = (XLA, BETTER, PALE)


def row_of(case: ModelCase, device: str, precision: str) -> dict[str, Any]:
    """The record of one case: the row that stands in the results where it is current, else one compiled now."""
    path = result.RESULTS / device / "compiled-models.json"
    old, head = result.earlier(path) if path.exists() else None, compiled.header("models", device)
    wanted = {"name": case.name, "source": compiled.source_digest(), "options": compiled.options(case, precision)}
    if old is not None and result.same_conditions(old, head):
        for row in old["cases"]:
            if wanted.items() <= row.items():
                return head | {"cases": [row]}
    made = {"source": wanted["source"], "options": wanted["options"], "commit": head["commit"], "date": head["date"]}
    return head | {"cases": [made | {"seconds": None} | compiled.row_of(case, device, precision)]}


def chosen(contenders: dict[str, Any], implementation: str) -> dict[str, Any]:
    """Those that the flag asks for: XLA's code, what the zoo chooses, what is named."""
    wanted = {"both": ("xla", "zoo", "triton"), "auto": ("zoo", "xla"), "xla": ("xla",), "triton": ("triton", "zoo")}
    names = [name for name in wanted[implementation] if name in contenders]
    names = names if implementation == "both" else names[:1]
    for name in names:
        if "failed" in contenders[name]:
            raise UserError(f"{name}: {contenders[name]['failed']}")
    return {name: contenders[name] for name in names}


def kinds_of(found: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(kind for figures in found.values() for kind in figures["kinds"]))


def memory_ms(moved: float, record: dict[str, Any]) -> float:
    return moved / record["model"]["bytes_per_second"] * 1e3


def show(record: dict[str, Any], found: dict[str, Any], console: Console) -> None:
    """The table of what the contenders do, by kind of work."""
    row = record["cases"][0]
    console.print(f"{row['name']}, {row['dtype']}, compiled for {record['device']} (not measured)", soft_wrap=True)
    table = Table("work")
    for label in found:
        for head in ("kernels", "GB", "ms of\nmemory"):  # in lines of their own, for 80 columns
            table.add_column(f"{label}\n{head}", justify="right")
    kinds = kinds_of(found)
    for kind in [*kinds, "all"]:
        cells = []
        for figures in found.values():
            of = figures if kind == "all" else figures["kinds"].get(kind, {"kernels": 0, "bytes": 0})
            cells += [str(of["kernels"]), f"{of['bytes'] / 1e9:.2f}", f"{memory_ms(of['bytes'], record):.2f}"]
        table.add_row(kind, *cells, end_section=kind == (kinds or ["all"])[-1])
    console.print(table)
    for label, figures in found.items():
        console.print(
            f"{label}: {figures['hand_written']} hand-written kernels, {figures['temporary_bytes'] / 1e9:.2f} GB temporary"
        )


def draw(record: dict[str, Any], found: dict[str, Any], path: pathlib.Path) -> None:
    """Bars of the memory's time by kind of work."""
    from matplotlib.figure import Figure

    row, kinds = record["cases"][0], kinds_of(found)
    figure = Figure(figsize=(8, 1.2 + 0.4 * len(kinds)), layout="constrained")
    axes, height = figure.subplots(), 0.8 / len(found)
    for i, ((label, figures), colour) in enumerate(zip(found.items(), COLOURS, strict=False)):
        times = [memory_ms(figures["kinds"].get(kind, {"bytes": 0})["bytes"], record) for kind in kinds]
        places = [y + i * height for y in range(len(kinds))]
        axes.barh(places, times, height, label=f"{label}, {figures['kernels']} kernels", color=colour)
    axes.set_yticks([y + 0.4 - height / 2 for y in range(len(kinds))], kinds)
    axes.invert_yaxis()
    axes.set_xlabel(f"ms that device memory needs at {record['model']['bytes_per_second'] / 1e12:g} TB/s")
    axes.set_title(f"{row['name']} (compiled, not measured)")
    axes.legend()
    figure.savefig(path, dpi=150)


def between_devices(case: ModelCase, device: str, given: Any) -> int:
    """The command with --devices."""
    if given.devices > interconnect.PER_HOST and given.devices % interconnect.PER_HOST:
        raise UserError(f"--devices: {given.devices} given, 2 to {interconnect.PER_HOST} or a multiple of that is needed")
    if not case.train or given.implementation not in ("both", "xla"):
        raise UserError("--devices: a training step by XLA's own code is compiled; leave out --mode and --implementation")
    record = sharded.record_of(case, device, given.devices, given.precision)
    sharded.show(record, Console())
    path = given.out / f"sharded-{given.model}-{given.devices}.json"
    result.write(record, path)
    print(f"written: {path}")
    return 0


def main(arguments: list[str]) -> int:
    parser = Parser("experiments.inspect", __doc__, "resnet18 --device h200")
    parser.add_argument("model", help="a name from `python -m zoo list`")
    parser.add_argument("--device", default="h200", help=f"one of {', '.join(device_model.NAMES)}")
    parser.add_argument("--implementation", default="both", choices=["both", "auto", "xla", "triton"])
    parser.add_argument("--devices", type=whole(2, 1024), help="compile for this many GPUs: 2 to 8, or a multiple of 8")
    parser.add_argument("--mode", default="train", choices=["train", "infer"])
    parser.add_argument("--batch-size", type=whole(1, 2**20), help="examples per step (the case's batch size)")
    parser.add_argument("--precision", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("runs", "inspect"), help="folder for the record and the picture"
    )
    given = parser.parse_args(arguments)
    device = device_model.kind_of(given.device)
    zoo.model_info(given.model)  # or it raises, with the nearest names
    case = zoo_case(given.model, given.mode == "train", given.batch_size)
    if given.devices:
        return between_devices(case, device, given)
    record = row_of(case, device, given.precision)
    found = chosen(record["cases"][0]["contenders"], given.implementation)
    show(record, found, Console())
    path = given.out / f"inspect-{given.model}{'' if given.mode == 'train' else '-infer'}.json"
    result.write(record, path)
    draw(record, found, path.with_suffix(".png"))
    print(f"written: {path} and {path.with_suffix('.png').name}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
