"""The comparison compiled for a GPU that is not there: python -m experiments.comparison.compiled operators|models [flags].

Compiles every case of the comparison for an H200 with XLA's code and with the hand-written kernels, and counts. Nothing is
run, nothing is measured. Writes experiments/results/DEVICE/compiled-operators.json or compiled-models.json after each case;
what is there from the same sources is not compiled again.

`modelled_seconds` is an estimate: for each kernel the longer of the time its bytes take at the bandwidth and its products at
the peak, plus a launch, all added up. A persistent recurrent kernel takes its steps, one after another, as
experiments/benchmarks/recurrent_compiled.py models them. The estimate knows no tuning, no cache between kernels and no overlap.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import hashlib
import importlib.metadata
import json
import pathlib
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import kernels
import zoo
from experiments.benchmarks.recurrent_compiled import CONSTANTS, step_seconds
from experiments.benchmarks.result import RESULTS
from experiments.comparison import arithmetic, machine
from experiments.comparison.cases import Case, operator_cases
from experiments.comparison.contenders import LOOPS, UNROLL, scoped
from experiments.comparison.models import FIRST, PUBLIC, ModelCase, model_cases
from experiments.comparison.programs import program
from experiments.comparison.timing import refusal
from experiments.errors import UserError, nearest, run
from experiments.inspect import BANDWIDTH, DEVICES, kind_of
from kernels.recurrent import config
from kernels.recurrent.cells import CELLS
from kernels.runtime import launch
from kernels.verification import aot, traffic

# Operations per second of the tensor cores on paper, dense; float32 products run in tf32.
PEAK = {"nvidia-h200": {"bfloat16": 989e12, "float16": 989e12, "float32": 494e12}}
HAND_WRITTEN = ("triton", "pallas")
SOURCES = ("kernels/**/*.py", "zoo/**/*.py", "kernels/tuned/*.json")
OWN_SOURCES = ("arithmetic", "cases", "compiled", "contenders", "models", "programs", "recurrent_cases")

Make = Callable[[], tuple[Callable[..., Any], tuple[Any, ...]]]  # a function and the shapes it is called with


def operator_programs(case: Case, device: str, precision: Any) -> dict[str, Make]:
    """XLA's code, of loops also with several steps in a turn, and every hand-written kernel of the operator."""
    shapes = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype(precision)) for a in case.arrays())
    with kernels.target(device):
        names = [name for name in kernels.available(case.operator) if name in HAND_WRITTEN]
    found: dict[str, Make] = {"xla": lambda: (scoped(case, "xla"), shapes)}
    if case.operator in LOOPS:
        found[f"xla unroll {UNROLL}"] = lambda: (scoped(case, "xla", UNROLL), shapes)
    return found | {name: lambda name=name: (scoped(case, name), shapes) for name in names}


def model_programs(case: ModelCase, device: str, precision: Any) -> dict[str, Make]:
    """XLA's code and the zoo's choice; of recurrent models the persistent kernels, which run where they are named."""

    def make(implementation: str | None, unroll: int = 1) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        view = zoo.training_view if case.train else zoo.evaluation_view
        graph, params, rest = zoo.split(view(nnx.eval_shape(lambda: case.build(precision))))
        if not case.train:  # they are held in it, as `programs.Weights` has them
            params = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, precision), params)
        inputs = (jax.ShapeDtypeStruct(a.shape, a.dtype(precision)) for a in case.arrays())
        return program(case, graph, implementation, unroll), (params, rest, *inputs)

    found: dict[str, Make] = {"xla": lambda: make("xla")}
    if case.family == "recurrent":
        return found | {f"xla unroll {UNROLL}": lambda: make("xla", UNROLL), "triton": lambda: make("triton")}
    return found | {"zoo": lambda: make(None)}


def persistent_kernels(calls: list[launch.Launch], device: str) -> dict[str, tuple[float, float]]:
    """Of each persistent kernel among the launches of a program, by its function's name: seconds for its steps, one after
    another, and the operations of its products; the mean where it is launched at several sizes.
    """
    found = collections.defaultdict(list)
    for call in calls:
        of = dict(call.constants)
        if "TIME" not in of:
            continue
        layers, gates = of["LAYERS"], CELLS[of["CELL"]].gates
        with kernels.target(device):
            plan = config.plan(gates, of["HIDDEN"], of["BATCH"], of["DIRECTIONS"], call.dtypes[0].itemsize, layers)
        assert isinstance(plan, config.Plan)  # or it would not have been launched
        parts = step_seconds(plan, min(layers, 2), call.dtypes[0].itemsize, "backward" in call.kernel.__name__)
        products = of["DIRECTIONS"] * (2 * layers - 1)  # a layer above the first multiplies what is below it as well
        operations = 2.0 * of["TIME"] * of["BATCH"] * products * gates * of["HIDDEN"] ** 2
        found[call.kernel.__name__].append(((of["TIME"] + layers - 1) * sum(parts.values()), operations))
    return {name: tuple(map(statistics.mean, zip(*rows, strict=True))) for name, rows in found.items()}  # type: ignore[misc]


def spilled(calls: list[launch.Launch], device: str) -> int:
    """Bytes that Triton's kernels among the launches spill."""
    return sum(aot.kernel_resources(call, device).spilled for call in dict.fromkeys(calls))


def figures(make: Make, device: str, precision: str) -> dict[str, Any]:
    """What one contender's program launches, moves and computes, and the time that a model of the device gives it."""
    with launch.recording() as calls:
        with kernels.target(device):
            function, shapes = make()
        compiled = aot.compile_for(device, function, *shapes)
    hlo = str(compiled.as_text())
    launched, operations = traffic.kernels_of(hlo), arithmetic.operations_of(hlo)
    bandwidth, peak = BANDWIDTH[device], PEAK[device][precision]
    persistent = persistent_kernels(calls, device)
    modelled = flops = 0.0
    kinds: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for kernel in launched:
        name = re.search(r"\b(?:lstm|gru|rnn)\b.*\b(\w+_kernel):", kernel.scope)
        waiting, computed = persistent.get(name[1] if name else "", (0.0, operations.get(kernel.instruction, 0.0)))
        modelled += kernel.times * (max(kernel.bytes / bandwidth, computed / peak, waiting) + CONSTANTS["xla_kernel"])
        flops += kernel.times * computed
        kinds[kind_of(kernel)].update(kernels=kernel.times, bytes=kernel.bytes * kernel.times)
    count, moved = traffic.total(launched)
    hand_written = sum(k.times for k in launched if "triton_kernel_call" in k.kind or "mosaic" in k.kind)
    return {
        "kernels": count,
        "hand_written": hand_written,
        "bytes": moved,
        "flops": flops,
        "floor_seconds": max(moved / bandwidth, flops / peak),
        "modelled_seconds": modelled,
        "temporary_bytes": getattr(compiled.memory_analysis(), "temp_size_in_bytes", None),
        **({"spilled_bytes": spilled(calls, device)} if calls else {}),
        "kinds": {kind: dict(of) for kind, of in sorted(kinds.items(), key=lambda item: -item[1]["bytes"])},
    }


def row_of(case: Case | ModelCase, device: str, precision: str) -> dict[str, Any]:
    """A case's entry in the record."""
    dtype = jnp.dtype(precision)
    row: dict[str, Any] = {"name": case.name, "dtype": precision}
    if isinstance(case, Case):
        row |= {"operator": case.operator, "bytes": case.bytes(dtype.itemsize), "flops": case.flops}
        row["floor_seconds"] = max(row["bytes"] / BANDWIDTH[device], case.flops / PEAK[device][precision])
        programs = operator_programs(case, device, dtype)
    else:
        row |= {"model": case.model, "train": case.train, "examples": case.shape[0], "flops": case.flops()}
        programs = model_programs(case, device, dtype)
    row["contenders"] = {}
    for name, make in programs.items():
        try:
            row["contenders"][name] = figures(make, device, precision)
        except Exception as problem:  # what cannot be compiled is a row of the table, not the end of the run
            row["contenders"][name] = {"failed": refusal(name, problem)}
    jax.clear_caches()  # dozens of large programs would fill the memory
    return row


def cases_of(kind: str) -> list[Case] | list[ModelCase]:
    """In the order of their interest: what is not compiled in time is what comes last."""
    if kind == "operators":
        return operator_cases(False, "cuda")
    cases = model_cases(False, "cuda")
    leading = len(FIRST) + len(PUBLIC)
    return cases[:leading] + sorted(cases[leading:], key=lambda case: not case.train)


def source_digest() -> str:
    """Of everything that the figures are computed from."""
    paths = [path for pattern in SOURCES for path in machine.ROOT.glob(pattern)]
    paths += [pathlib.Path(__file__).with_name(f"{name}.py") for name in OWN_SOURCES]
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.relative_to(machine.ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def header(kind: str, device: str) -> dict[str, Any]:
    """What every figure of a record was obtained with."""
    return {
        "measured": False,
        "experiment": f"compiled-{kind}",
        "device": device,
        "date": datetime.date.today().isoformat(),
        "commit": machine.commit(),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "triton", "jax-triton")},
        "protocol": "compiled by XLA for this device, not run; kernels, bytes and products counted in the optimized program, "
        "a loop's as often as it turns",
        "model": {
            "bytes_per_second": BANDWIDTH[device],
            "flops_per_second": PEAK[device],
            "seconds_per_launch": CONSTANTS["xla_kernel"],
        },
    }


def compile_cases(
    kind: str, device: str, old: dict[str, Any], *, only: str = "", precision: str | None = None, minutes: float = 1e9
) -> Iterator[dict[str, Any]]:
    """The record after each case that had to be compiled.

    Args:
      old: the record that there was before.
      only: part of the names of the cases to compile.
      precision: of every case; if None the case's own where it has one, else bfloat16.
      minutes: no case is begun after so many.
    """
    begun, digest = time.monotonic(), source_digest()
    head, cases = header(kind, device), cases_of(kind)
    rows = {row["name"]: row for row in old.get("cases", [])} if old.get("versions") == head["versions"] else {}
    for case in cases:
        obtained = {"dtype": precision or case.precision or "bfloat16", "source": digest}
        if only not in case.name or obtained.items() <= rows.get(case.name, {}).items():
            continue
        if time.monotonic() - begun > 60 * minutes:
            return
        obtained |= {"commit": head["commit"], "date": head["date"]}
        rows[case.name] = row_of(case, device, obtained["dtype"]) | obtained
        yield head | {"cases": [rows[case.name] for case in cases if case.name in rows]}


def line(row: dict[str, Any]) -> str:
    parts = []
    for name, found in row["contenders"].items():
        counts = lambda f: f"{f['kernels']:,} kernels, {f['bytes'] / 1e9:.3g} GB, modelled {f['modelled_seconds'] * 1e3:.3g} ms"
        parts.append(f"{name} {found['failed'] if 'failed' in found else counts(found)}")
    return f"{row['name']}: {'; '.join(parts)}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.comparison.compiled", description=__doc__.split("\n\n")[0])
    parser.add_argument("kind", choices=("operators", "models"))
    parser.add_argument("--only", default="", help="the cases whose name contains this")
    parser.add_argument("--minutes", type=float, default=1e9, help="start no case after so many minutes")
    parser.add_argument("--device", default="h200", help=f"one of {', '.join(DEVICES)}")
    parser.add_argument("--precision", choices=sorted(PEAK["nvidia-h200"]), help="the case's own, or bfloat16, if not given")
    parser.add_argument("--out", type=pathlib.Path, help="folder for the result; experiments/results/DEVICE if not given")
    given = parser.parse_args(arguments)
    if given.device not in DEVICES:
        raise UserError(nearest("--device", given.device, DEVICES))
    if not given.minutes > 0:
        raise UserError(f"--minutes: {given.minutes:g} given, more than 0 is needed")
    if not any(given.only in case.name for case in cases_of(given.kind)):
        raise UserError(nearest("--only", given.only, (case.name for case in cases_of(given.kind))))
    device = DEVICES[given.device]
    folder = given.out or RESULTS / device
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"compiled-{given.kind}.json"
    try:
        old = json.loads(path.read_text()) if path.exists() else {}
    except json.JSONDecodeError as error:
        raise UserError(f"result file: {path} is damaged ({error})") from error
    before = {row["name"]: row for row in old.get("cases", [])}
    for record in compile_cases(given.kind, device, old, only=given.only, precision=given.precision, minutes=given.minutes):
        text = json.dumps(record, indent=1) + "\n"
        whole = path.with_suffix(".part")
        whole.write_text(text)
        whole.replace(path)  # a run that is killed leaves a file that is whole
        for row in record["cases"]:
            if before.get(row["name"]) != row:
                before[row["name"]] = row
                print(line(row), flush=True)
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
