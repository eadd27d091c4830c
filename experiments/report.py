"""Tables and pictures in README.md and docs/ from result files: python -m experiments.report [--check].

A block between <!-- begin NAME --> and <!-- end NAME --> is what the function of that name in `BLOCKS` returns; the pictures of
`PICTURES` are drawn again where their result files have changed. With --check nothing is written, and the exit status is 1
where a text or a picture differs from its result files.
"""

from __future__ import annotations

import functools
import json
import pathlib
import re
import sys
from collections.abc import Callable
from typing import Any

import zoo
from experiments import inspect
from experiments.benchmarks import comparison_tables, tables
from experiments.comparison import pictures
from experiments.errors import UserError, run
from experiments.guide import pictures as guide_pictures
from experiments.guide import session as guide_session
from experiments.guide import tables as guide_tables

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = pathlib.Path(__file__).parent / "results"
BLOCK = re.compile(r"(<!-- begin ([\w-]+) -->\n)(.*?)(<!-- end \2 -->)", re.DOTALL)


def result(name: str, device: str = "cpu") -> dict[str, Any]:
    """The content of experiments/results/<device>/<name>.json."""
    return json.loads((RESULTS / device / f"{name}.json").read_text())


def compared(kind: str, device: str = "nvidia-h200") -> dict[str, Any] | None:
    """The comparison of "operators" or "models" as measured on a device, else as compiled for it; None if neither is there."""
    names = [f"{way}-{kind}" for way in ("compare", "compiled") if (RESULTS / device / f"{way}-{kind}.json").exists()]
    return result(names[0], device) if names else None


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; a header that begins with > is aligned to the right."""
    align = ["---:" if cell.startswith(">") else "---" for cell in header]
    lines = [[cell.lstrip(">") for cell in header], align, *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def where(found: dict[str, Any]) -> str:
    """The line under a table: where, with which versions and when its figures were obtained."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items() if name in ("jax", "torch"))
    how = "Measured" if found["measured"] else "Compiled, not run"
    return f"{how}: {found['device']}, {versions}, {found['date']}.\n"


def models() -> str:
    """The registry."""
    rows = []
    for info in map(zoo.model_info, zoo.list_models()):
        shape = "×".join(map(str, info.input_shape))
        rows.append([f"`{info.name}`", f"{info.params:,}", f"{info.macs / 1e9:.4g}", shape, tables.citation(info.paper)])
    return table(["name", ">parameters", ">GMACs", "input", "paper"], rows)


def lenet5_digits() -> str:
    """Ten seeds of `make train`."""
    found = result("lenet5-digits")
    accuracies = sorted(r["accuracy"] for r in found["runs"])
    seconds = sorted(r["process_seconds"] for r in found["runs"])
    worst, median, best = accuracies[0], accuracies[len(accuracies) // 2], accuracies[-1]
    text = (
        f"LeNet-5 on the digits, {len(accuracies)} seeds: held-out accuracy {worst:.2%} to {best:.2%}, median {median:.2%}; "
        f"the whole command took {seconds[0]:.0f} to {seconds[-1]:.0f} s.\n"
    )
    return text + where(found)


def lenet5_step() -> str:
    """The training step beside torch's."""
    found = result("lenet5-step")
    ours, torch = (found["seconds_per_step"][name]["median"] * 1e3 for name in ("zoo", "torch"))
    text = (
        f"LeNet-5 training step, batch 128, float32: {ours:.1f} ms, torch {torch:.1f} ms, ratio {found['ratio']:.2f}; "
        f"Python's share of a step {found['python_seconds_per_step'] * 1e3:.2f} ms.\n"
    )
    return text + where(found)


def compiled_h200() -> str:
    """Training steps compiled for the H200, with XLA's code alone and with the hand-written kernels."""
    rows, found = [], {}
    for path in sorted((RESULTS / "nvidia-h200").glob("inspect-*.json")):
        found = json.loads(path.read_text())
        xla, ours = found["implementations"]["xla"], found["implementations"]["hand-written"]
        cells = [f"`{found['model']}`", str(found["batch_size"]), f"{xla['kernels']:,}", f"{ours['kernels']:,}"]
        cells += [f"{figures['bytes'] / 1e9:.1f}" for figures in (xla, ours)]
        rows.append([*cells, f"{xla['memory_ms'] / ours['memory_ms']:.2f}"])
    header = ["model", ">batch", ">kernels, XLA", ">with ours", ">GB moved, XLA", ">with ours", ">ratio of bytes"]
    return table(header, rows) + where(found)


def recurrent_learning() -> str:
    """Three seeds of each recurrent recipe."""
    found = result("recurrent-learning")
    return table(*tables.recurrent_learning(found)) + where(found)


def conv_learning() -> str:
    """Three seeds of ResNet-20 on the digits, and networks that learn 64 images by heart."""
    found = result("conv-learning")
    return table(*tables.conv_learning(found)) + where(found)


def gan_learning() -> str:
    """Three seeds of each GAN recipe."""
    found = result("gan-learning")
    return table(*tables.gan_learning(found)) + where(found)


def cpu_speed() -> str:
    """Training steps and inferences beside torch's on a CPU."""
    conv, recurrent, gan = (result(name) for name in ("conv-models", "recurrent-cpu", "gan-cpu"))
    return table(*tables.cpu_speed(conv, recurrent, gan)) + where(conv)


def conv_transpose() -> str:
    """The forms of DCGAN's transposed convolutions, on a CPU and compiled for the H200."""
    cpu, compiled = result("gan-cpu"), result("conv-transpose", "nvidia-h200")
    return table(*tables.conv_transpose(cpu, compiled)) + where(cpu) + where(compiled)


def _recurrent_shape(row: dict[str, Any]) -> str:
    form = "" if row["directions"] == 1 else ", both directions"
    layers = "" if row["layers"] == 1 else f", {row['layers']} layers"
    return f"{row['cell']} {row['batch']}, {row['steps']}, {row['features']} → {row['hidden']}{layers}{form}, {row['dtype']}"


def recurrent_time() -> str:
    """The model of the time of recurrent layers, forward and forward + backward, beside the launches of XLA's loop."""
    found = result("recurrent-compiled", "nvidia-h200")
    rows = []
    for row in found["shapes"]:
        ours, alone, xla = row["ours"], row["layer_by_layer"], row["xla"]
        both = lambda figures: figures["forward_ms"] + figures["backward_ms"]
        step = "/".join(f"{sum(ours[f'{name}_step_us'].values()):.1f}" for name in ("forward", "backward"))
        rows.append(
            [
                _recurrent_shape(row),
                f"{alone['steps']:,}",
                f"{ours['steps']:,}",
                step,
                *(f"{figures['forward_ms']:.2f} / {both(figures):.2f}" for figures in (alone, ours)),
                f"{xla['forward_ms']:.1f} / {xla['both_ms']:.1f}",
            ]
        )
    header = ["shape", ">steps by layer", ">wavefront", ">µs a step", ">ms by layer", ">ms wavefront", ">ms XLA's loop"]
    return table(header, rows) + where(found)


def recurrent_model() -> str:
    """What that model assumes."""
    found = result("recurrent-compiled", "nvidia-h200")["assumed"]
    rows = [[name.replace("_", " "), f"{row['value']:g}", row["unit"], row["source"]] for name, row in found.items()]
    return table(["constant", ">value", "unit", "source"], rows)


def recurrent_launches() -> str:
    """What the launches of the benchmarks' shapes take of the device."""
    found = result("recurrent-compiled", "nvidia-h200")
    rows = []
    for row in found["shapes"]:
        for name in ("forward", "backward"):
            taken = row[name]
            cells = [str(taken[key]) for key in ("blocks", "resident_blocks", "threads", "registers", "spilled")]
            kilobytes = f"{taken['shared_memory'] / 1024:.0f}"
            rows.append([_recurrent_shape(row), name, *cells, kilobytes, ", ".join(taken["instructions"])])
    header = ["shape", "pass", ">blocks", ">resident", ">threads", ">registers", ">spilled", ">shared KB", "matrix instruction"]
    return table(header, rows) + where(found)


def recurrent_sizes() -> str:
    """Which sizes one layer may have, and that none of them spills."""
    found = result("recurrent-compiled", "nvidia-h200")
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in found["sizes"]:
        groups.setdefault((row["cell"], row["dtype"]), []).append(row)
    rows = []
    for (cell, dtype), members in groups.items():
        fitting = [row for row in members if "forward" in row]
        passes = [row[name] for row in fitting for name in ("forward", "backward")]
        refused = ", ".join(f"{row['hidden']} × {row['batch']}" for row in members if "forward" not in row)
        spilling = sum(taken["spilled"] > 0 for taken in passes)
        most = max(taken["registers"] for taken in passes)
        rows.append([cell, dtype, str(len(passes)), str(spilling), str(most), refused or "none"])
    header = ["cell", "dtype", ">kernels compiled", ">that spill", ">most registers", "refused, hidden × batch"]
    return table(header, rows) + where(found)


def recurrent_loops() -> str:
    """XLA's best case: one layer with its loop unrolled, and how its two loops are driven."""
    found = result("recurrent-compiled", "nvidia-h200")
    rows = [
        [unroll, *(f"{figures[f'{name}_kernels_per_step']:.1f}" for name in ("forward", "both"))]
        for unroll, figures in found["xla_unrolled"].items()
    ]
    header = ["steps per turn of the loop", ">kernels a step, forward", ">forward + backward"]
    loops = [[options, *(str(count) for count in counts.values())] for options, counts in found["xla_loops"].items()]
    kinds = ["command buffers", *(f">{kind}" for kind in next(iter(found["xla_loops"].values())))]
    return table(header, rows) + "\n" + table(kinds, loops) + where(found)


def compiled_steps() -> str:
    """The same programs by launches and by bytes outside the convolutions, for docs/kernels.md."""
    return inspect.summary(RESULTS / "nvidia-h200") + "\n"


def compared_operators() -> str:
    """Who wins each operator on the H200, by how much and why."""
    found = compared("operators")
    return "Not compiled yet.\n" if found is None else table(*comparison_tables.operators(found)) + where(found)


def compiled_cases() -> str:
    """Each operator's cases, compiled."""
    found = result("compiled-operators", "nvidia-h200")
    failed = comparison_tables.failures(found)
    return table(*comparison_tables.compiled_cases(found)) + where(found) + (f"\nNot compiled:\n\n{failed}" if failed else "")


def compiled_floors() -> str:
    """The same cases, but the recurrent ones, beside the bytes that must move."""
    found = result("compiled-operators", "nvidia-h200")
    return table(*comparison_tables.floors(found)) + where(found)


def compiled_models() -> str:
    """Each model that was compiled, and where its bytes go."""
    found = result("compiled-models", "nvidia-h200")
    failed = comparison_tables.failures(found)
    return table(*comparison_tables.models(found)) + where(found) + (f"\nNot compiled:\n\n{failed}" if failed else "")


def _measured(device: str, command: str) -> str:
    texts = []
    for kind in ("operators", "models"):
        if (RESULTS / device / f"compare-{kind}.json").exists():
            found = result(f"compare-{kind}", device)
            texts.append(table(*comparison_tables.measured_cases(found)) + where(found))
        else:
            texts.append(
                f"No {kind} measured yet: `{command.format(kind=kind)}` writes the file that this table is read from.\n"
            )
    return "\n".join(texts)


def measured_cpu() -> str:
    """Operators and models beside torch on a CPU."""
    return _measured("cpu", "python -m experiments.compare {kind} --peers torch")


def measured_h200() -> str:
    """Operators and models on the H200, once somebody had one."""
    return _measured("nvidia-h200", "python -m experiments.compare {kind} --peers torch,torch.compile,flax")


def lessons() -> str:
    """The figure behind each optimization."""
    compiled, recurrent = (result(name, "nvidia-h200") for name in ("compiled-operators", "recurrent-compiled"))
    return table(*comparison_tables.lessons(compiled, recurrent)) + where(compiled)


def _guide(device: str) -> dict[str, Any] | None:
    return result("guide", device) if (RESULTS / device / "guide.json").exists() else None


def guide() -> str:
    """Which GPU optimization pays: all topics."""
    gpu, cpu = result("guide", "nvidia-h200"), _guide("cpu")
    topics = [guide_session.load(name) for name in guide_session.NAMES]
    text = table(*guide_tables.overview(topics, gpu, cpu)) + where(gpu)
    return text + (where(cpu) if cpu is not None else "")


def guide_topic(name: str) -> str:
    """One of them: what it teaches, its cases and verdicts, and where this repository uses it."""
    gpu, recurrent = (result(file, "nvidia-h200") for file in ("guide", "recurrent-compiled"))
    topic = guide_session.load(name)
    return guide_tables.topic_section(topic, gpu, _guide("cpu"), compared("operators"), recurrent, table)


BLOCKS: dict[str, Callable[[], str]] = {
    "models": models,
    "lenet5-digits": lenet5_digits,
    "lenet5-step": lenet5_step,
    "compiled-h200": compiled_h200,
    "compiled-steps": compiled_steps,
    "recurrent-learning": recurrent_learning,
    "conv-learning": conv_learning,
    "gan-learning": gan_learning,
    "cpu-speed": cpu_speed,
    "conv-transpose": conv_transpose,
    "recurrent-time": recurrent_time,
    "recurrent-model": recurrent_model,
    "recurrent-launches": recurrent_launches,
    "recurrent-sizes": recurrent_sizes,
    "recurrent-loops": recurrent_loops,
    "compared-operators": compared_operators,
    "compiled-cases": compiled_cases,
    "compiled-floors": compiled_floors,
    "compiled-models": compiled_models,
    "measured-cpu": measured_cpu,
    "measured-h200": measured_h200,
    "lessons": lessons,
    "guide": guide,
    **{f"guide-{name}": functools.partial(guide_topic, name) for name in guide_session.NAMES},
}
# By file: what draws it, and the comparisons that it is drawn from.
PICTURES: dict[str, tuple[Callable[..., None], tuple[str, ...]]] = {
    "hand-kernels.png": (pictures.draw_overview, ("operators", "models")),
    "operators.png": (pictures.draw_speedups, ("operators",)),
    "models.png": (pictures.draw_speedups, ("models",)),
    "roofline.png": (pictures.draw_roofline, ("operators",)),
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
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def stale_pictures() -> dict[pathlib.Path, Callable[[], None]]:
    """The pictures that were not drawn from the result files as they are, and what draws them."""
    found: dict[pathlib.Path, Callable[[], None]] = {}
    for name, (draw, kinds) in PICTURES.items():
        path, records = ROOT / "docs" / "images" / name, [record for kind in kinds if (record := compared(kind))]
        if len(records) == len(kinds) and pictures.drawn_from(path) != pictures.digest(*records):
            found[path] = functools.partial(draw, *records, path)
    path, record = ROOT / "docs" / "images" / "guide.png", _guide("nvidia-h200")
    if record is not None and pictures.drawn_from(path) != pictures.digest(record):
        found[path] = functools.partial(guide_pictures.draw, record, path)
    return found


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        raise UserError(f"arguments: {' '.join(arguments)} given; only --check is known")
    texts = {path: path.read_text() for path in documents()}
    stale: dict[pathlib.Path, Callable[[], object]] = {
        path: functools.partial(path.write_text, new) for path, text in texts.items() if (new := render(text)) != text
    }
    stale |= stale_pictures()
    for path, renew in stale.items():
        if arguments:
            print(f"{path.relative_to(ROOT)} differs from the result files; `python -m experiments.report` rewrites it")
        else:
            renew()
            print(f"rewrote {path.relative_to(ROOT)}")
    return 1 if stale and arguments else 0


if __name__ == "__main__":
    sys.exit(run(main))
