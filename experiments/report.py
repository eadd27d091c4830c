"""Updates README.md and docs/ from the result files: python -m experiments.report [--check | --html [FILE]].

It fills each block between <!-- begin NAME --> and <!-- end NAME --> with what the function of that name in `BLOCKS` returns,
writes the pages of `PAGES` whole, and redraws the pictures of `PICTURES` whose result files have changed. With --check it
writes nothing, and the exit status is 1 if a text or a picture differs from its result files. With --html it writes one page
for a browser instead: which side is faster, and every comparison in tables and charts.
"""

from __future__ import annotations

import functools
import pathlib
import re
import sys
from collections.abc import Callable
from typing import Any

from experiments.comparison import pictures
from experiments.comparison import tables as compared
from experiments.errors import UserError, run
from experiments.flags import Parser
from experiments.guide import pictures as guide_pictures
from experiments.guide import tables as guide_tables
from experiments.guide import topics, tutorial
from experiments.measuring import device_model
from experiments.measuring.pictures import digest, drawn_from
from experiments.measuring.result import RESULTS, load
from experiments.measuring.tables import Table, markdown, shown, where
from experiments.pages import executed, house, models, recurrent, sharded, soak, training
from experiments.pages import gpus as gpu_page
from experiments.pages.html.page import page as html_page
from kernels.runtime import gpus

ROOT = pathlib.Path(__file__).parents[1]
BLOCK = re.compile(r"(<!-- begin ([\w-]+) -->\n)(.*?)(<!-- end \2 -->)", re.DOTALL)
GPU = "nvidia-h200"
HTML = pathlib.Path("build") / "report.html"
ARCHITECTURES = ("sm_80", "sm_90")


def found(name: str, device: str = GPU) -> dict[str, Any] | None:
    """A result file; None where there is none."""
    return load(name, device) if (RESULTS / device / f"{name}.json").exists() else None


def comparison(kind: str) -> dict[str, Any] | None:
    """The comparison of "operators" or "models" as measured on the H200, else as compiled for it; None if neither is there."""
    return found(f"compare-{kind}") or found(f"compiled-{kind}")


def tabled(table: Callable[..., Table], *names: str, device: str = "cpu") -> str:
    """A table of result files, and where the first of them is from."""
    records = [load(name, device) for name in names]
    return shown(table(*records), records[0])


def said(text: Callable[..., str], *names: str) -> str:
    records = [load(name) for name in names]
    return text(*records) + where(records[0])


def compiled(table: Callable[[dict[str, Any]], Table], kind: str) -> str:
    """A table of the compiled comparison, and what could not be compiled."""
    record = load(f"compiled-{kind}", GPU)
    failed = compared.failures(record)
    return shown(table(record), record) + (f"\nNot compiled:\n\n{failed}" if failed else "")


def measured(device: str, flags: str) -> str:
    """The measured comparisons of a device, or the command that makes them."""
    texts = []
    for kind in ("operators", "models"):
        record, command = found(f"compare-{kind}", device), f"python -m experiments.compare {kind} --peers {flags}"
        missing = f"No {kind} measured yet: `{command}` writes the result file for this table.\n"
        texts.append(missing if record is None else shown(compared.measured_cases(record), record))
    return "\n".join(texts)


def conv_transpose() -> str:
    records = load("gan-cpu"), load("conv-transpose", GPU)
    return shown(training.conv_transpose(*records), *records)


def soaked() -> str:
    """What became of the runs that were disturbed, or the command that disturbs them."""
    record = found("soak", "cpu")
    if record is None:
        return "No soak yet: `python -m experiments.soak --minutes 60` writes the result file for this table.\n"
    return soak.summary(record) + "\n" + shown(soak.faults(record), record)


def between_devices() -> str:
    """Training steps compiled for many devices, and modelled from that; or the command that does so."""
    names = [f"sharded-{model}-{count}" for model in ("resnet50", "lstm_lm") for count in (8, 64, 1024)]
    records = [record for name in names if (record := found(name)) is not None]
    if not records:
        return "Not compiled yet: `python -m experiments.inspect resnet50 --devices 8 --out experiments/results/nvidia-h200`.\n"
    compiled, modelled = markdown(*sharded.table(records)), markdown(*sharded.scaling(records))
    return f"{compiled}{where(records[0])}\nModelled from these:\n\n{modelled}"


def recurrent_loops() -> str:
    record = load("recurrent-compiled", GPU)
    return markdown(*recurrent.unrolled(record)) + "\n" + shown(recurrent.loops(record), record)


def who_wins() -> str:
    record = comparison("operators")
    return "Not compiled yet.\n" if record is None else shown(compared.operators(record), record)


def execution(text: Callable[..., str]) -> str:
    """Of the compiled kernels as they were executed, and of the faults put into them."""
    records = [[found(f"{kind}{name}", "ptx") for name in ARCHITECTURES] for kind in ("", "faults-")]
    return text(*([record for record in of if record is not None] for of in records))


def time_model() -> str:
    """What the compiled comparisons' files say that their times were computed with."""
    lines, records = [], [load(name, GPU) for name in ("compiled-operators", "compiled-models")]
    for record in records:
        name, model = record["experiment"], record["model"]
        peaks = {kind: f"{value / 1e12:.0f}" for kind, value in model["flops_per_second"].items()}
        rate, launched = f"{model['bytes_per_second'] / 1e12:g} TB/s", f"{model['seconds_per_launch'] * 1e6:g} µs"
        lines.append(
            f"- `{name}.json`: the time of a kernel is the longer of its bytes at {rate} and its products at the tensor cores' "
            f"peak ({peaks['bfloat16']} Tflop/s for 16 bits, {peaks['float32']} for float32 in tf32), plus {launched} for its "
            "launch; the times of all kernels are added up;\n"
        )
    lines.append(
        "- a persistent recurrent kernel takes its steps one after another, each as [recurrent.md](recurrent.md) models it.\n\n"
    )
    present = device_model.constants(GPU)
    older = [r["experiment"] for r in records if r["model"]["bytes_per_second"] != present["memory"]]
    if older:
        names = " and ".join(f"`{name}.json`" for name in older)
        lines.append(
            f"{names} were computed with earlier constants than [guide.md](guide.md) and [recurrent.md](recurrent.md) list "
            "now; `python -m experiments.comparison.compiled operators`, or `models`, computes them again.\n\n"
        )
    return "".join(lines) + where(records[-1])


def tutorial_map() -> str:
    """Where each section of a GPU tutorial is shown."""
    gpu, cpu = load("guide", GPU), found("guide", "cpu")
    return shown(tutorial.table(gpu, cpu), *(record for record in (gpu, cpu) if record is not None))


def gan_loop() -> str:
    """The loop that docs/gan.md explains, as it stands in the file."""
    text = (ROOT / "experiments" / "examples" / "gan_by_hand.py").read_text()
    function = text[text.index("def train(") : text.index("\n\n\ndef main(")]
    return f"```python\n{function}\n```\n"


def guide() -> str:
    """Which GPU optimization pays: all topics."""
    gpu, cpu = load("guide", GPU), found("guide", "cpu")
    table = guide_tables.overview([topics.load(name) for name in topics.NAMES], gpu, cpu)
    return shown(table, *(record for record in (gpu, cpu) if record is not None))


def guide_topic(name: str) -> str:
    """One of them: what it teaches, its cases and verdicts, and where this repository uses it."""
    records = load("guide", GPU), found("guide", "cpu"), comparison("operators"), load("recurrent-compiled", GPU)
    return guide_tables.topic_section(topics.load(name), *records)


def guide_row(name: str) -> list[dict[str, Any] | None]:
    """A topic's row of the guide's result file, for its picture."""
    return [guide_tables.rows_of(load("guide", GPU)).get(name)]


_of = functools.partial
_recurrent = _of(_of, tabled, device=GPU)
BLOCKS: dict[str, Callable[[], str]] = {
    "house": house.picture,
    "lenet5-digits": _of(said, training.lenet5_digits, "lenet5-digits"),
    "on-a-cpu": _of(said, training.on_a_cpu, "compare-models", "python-step"),
    "compiled-h200": _of(tabled, compared.training_steps, "compiled-models", device=GPU),
    "compiled-steps": _of(tabled, compared.outside_convolutions, "compiled-models", device=GPU),
    "recurrent-learning": _of(tabled, training.recurrent_learning, "recurrent-learning"),
    "conv-learning": _of(tabled, training.conv_learning, "conv-learning"),
    "fine-tuning": _of(tabled, training.fine_tuning, "fine-tuning"),
    "input-and-checkpoints": _of(said, training.input_and_checkpoints, "input-and-checkpoints"),
    "fuzz": _of(tabled, training.fuzz, "fuzz"),
    "gan-learning": _of(tabled, training.gan_learning, "gan-learning"),
    "cpu-speed": _of(tabled, training.cpu_speed, "conv-models", "recurrent-cpu", "gan-cpu"),
    "conv-transpose": conv_transpose,
    "soak": soaked,
    "between-devices": between_devices,
    "recurrent-time": _recurrent(recurrent.time, "recurrent-compiled"),
    "recurrent-model": lambda: markdown(*recurrent.assumptions(load("recurrent-compiled", GPU))),
    "recurrent-launches": _recurrent(recurrent.launches, "recurrent-compiled"),
    "recurrent-sizes": _recurrent(recurrent.sizes, "recurrent-compiled"),
    "recurrent-loops": recurrent_loops,
    "compared-operators": who_wins,
    "compiled-cases": _of(compiled, compared.compiled_cases, "operators"),
    "folded": _of(tabled, compared.folded, "compiled-models", device=GPU),
    "compiled-floors": _of(tabled, compared.floors, "compiled-operators", device=GPU),
    "compiled-models": _of(compiled, compared.models, "models"),
    "measured-cpu": _of(measured, "cpu", "torch"),
    "measured-h200": _of(measured, GPU, "torch,torch.compile,flax"),
    "executed": _of(execution, executed.page),
    "executed-said": _of(execution, executed.sentence),
    "gan-loop": gan_loop,
    "tutorial-map": tutorial_map,
    "guide": guide,
    "guide-facts": lambda: markdown(*guide_tables.facts()),
    "time-model": time_model,
    **{f"guide-{name}": _of(guide_topic, name) for name in topics.NAMES},
}
# Files that are written whole.
PAGES: dict[str, Callable[[], str]] = {
    "docs/models.md": lambda: models.page(load("parity"), load("float32-gradients")),
    "docs/gpus.md": lambda: gpu_page.page({name: load("gpu-compiled", gpu.kind) for name, gpu in gpus.GPUS.items()}),
}
# By file under docs/images/: what draws it, and from which records.
PICTURES: dict[str, tuple[Callable[..., None], Callable[[], list[dict[str, Any] | None]]]] = {
    "hand-kernels.png": (pictures.draw_overview, lambda: [comparison("operators"), comparison("models")]),
    "operators.png": (pictures.draw_speedups, lambda: [comparison("operators")]),
    "models.png": (pictures.draw_speedups, lambda: [comparison("models")]),
    "roofline.png": (pictures.draw_roofline, lambda: [comparison("operators")]),
    "fine-tuning.png": (training.draw_fine_tuning, lambda: [found("fine-tuning", "cpu")]),
    "guide.png": (guide_pictures.draw, lambda: [found("guide")]),
    **{
        f"guide-{name}.png": (_of(guide_pictures.draw_topic, topics.load(name)), _of(guide_row, name))
        for name in topics.NAMES
        if topics.load(name).picture is not None
    },
}


def render(text: str) -> str:
    """The text with each block as its result files say.

    Raises:
      UserError: a block of an unknown name.
    """

    def one(match: re.Match[str]) -> str:
        if match[2] not in BLOCKS:
            raise UserError(f"block: {match[2]!r} is not one of {', '.join(BLOCKS)}")
        return f"{match[1]}{BLOCKS[match[2]]()}{match[4]}"

    return BLOCK.sub(one, text)


def documents() -> list[pathlib.Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def written(path: pathlib.Path) -> str:
    """The text of a document as its result files say."""
    whole = PAGES.get(path.relative_to(ROOT).as_posix())
    return whole() if whole else render(path.read_text())


def stale_pictures() -> dict[pathlib.Path, Callable[[], None]]:
    """The pictures that were not drawn from the result files as they are, and what draws them."""
    stale: dict[pathlib.Path, Callable[[], None]] = {}
    for name, (draw, sources) in PICTURES.items():
        path, records = ROOT / "docs" / "images" / name, sources()
        if None not in records and drawn_from(path) != digest(*records):  # type: ignore[arg-type]
            stale[path] = functools.partial(draw, *records, path)
    return stale


def main(arguments: list[str]) -> int:
    parser = Parser("experiments.report", __doc__, "--check")
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if something differs")
    parser.add_argument(
        "--html", nargs="?", type=pathlib.Path, const=HTML, metavar="FILE", help=f"write one page for a browser ({HTML})"
    )
    given = parser.parse_args(arguments)
    check = given.check
    if given.html is not None:
        if check:
            raise UserError("--html and --check: only one of them can be given")
        given.html.parent.mkdir(parents=True, exist_ok=True)
        given.html.write_text(html_page())
        print(f"wrote {given.html}; open it in a browser, nothing is loaded from elsewhere")
        return 0
    stale: dict[pathlib.Path, Callable[[], object]] = {
        path: functools.partial(path.write_text, new) for path in documents() if (new := written(path)) != path.read_text()
    }
    stale |= stale_pictures()
    for path, renew in stale.items():
        if check:
            print(f"{path.relative_to(ROOT)} differs from the result files; `python -m experiments.report` rewrites it")
        else:
            renew()
            print(f"rewrote {path.relative_to(ROOT)}")
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(run(main))
