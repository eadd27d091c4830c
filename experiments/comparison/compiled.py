"""The comparison, compiled for an absent GPU: python -m experiments.comparison.compiled operators|models [flags].

Compiles every case of the comparison for an H200 with XLA's code and with the hand-written kernels, and counts kernels and
bytes. Nothing is run or measured. Writes experiments/results/DEVICE/compiled-operators.json or compiled-models.json after each
case; rows from the same sources are not compiled again. A training step donates the memory of its weights, as in a training
loop.

`modelled_seconds` is an estimate: for each kernel the longer of the time its bytes take at the bandwidth and its products at
the peak, plus a launch, all added up. A persistent recurrent kernel takes the sum of its steps, as
measuring/recurrent_model.py models them. The estimate ignores tuning, caching between kernels and overlap.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import kernels
import zoo
from experiments.comparison.case import Case
from experiments.comparison.cases import operator_cases
from experiments.comparison.contenders import LOOPS, scoped
from experiments.comparison.models import FIRST, PUBLIC, ModelCase, model_cases
from experiments.comparison.programs import DONATED, UNROLL, program
from experiments.errors import run
from experiments.measuring import counting, device_model, machine, recurrent_model, result, resume, sources
from experiments.measuring.clock import refusal
from kernels.runtime import launch
from kernels.verification import aot

HAND_WRITTEN = ("triton", "pallas")
PROTOCOL = (
    "compiled by XLA for this device, not run; kernels, bytes and products counted in the optimized program, a loop's as often "
    "as it turns; a training step is given the memory of its weights where its options say so (donated)"
)


@dataclasses.dataclass(frozen=True)
class Program:
    """A function, the shapes of its arguments, and the arguments that are donated."""

    function: Callable[..., Any]
    shapes: tuple[Any, ...]
    donated: tuple[int, ...] = ()


Make = Callable[[], Program]


def operator_programs(case: Case, device: str, precision: Any) -> dict[str, Make]:
    """XLA's code, loops also unrolled, and every hand-written kernel of the operator."""
    shapes = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype(precision)) for a in case.arrays())
    with kernels.target(device):
        names = [name for name in kernels.available(case.operator) if name in HAND_WRITTEN]
    found: dict[str, Make] = {"xla": lambda: Program(scoped(case, "xla"), shapes)}
    if case.operator in LOOPS:
        found[f"xla unroll {UNROLL}"] = lambda: Program(scoped(case, "xla", UNROLL), shapes)
    return found | {name: lambda name=name: Program(scoped(case, name), shapes) for name in names}


def model_programs(case: ModelCase, device: str, precision: Any) -> dict[str, Make]:
    """XLA's code and the zoo's choice; for recurrent models the persistent kernels, which run only where they are named."""

    def make(implementation: str | None, unroll: int = 1) -> Program:
        view = zoo.training_view if case.train else zoo.evaluation_view
        graph, params, rest = zoo.split(view(nnx.eval_shape(lambda: case.build(precision))))
        if not case.train:  # they are held in it, as `programs.Weights` has them
            params = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, precision), params)
        inputs = (jax.ShapeDtypeStruct(a.shape, a.dtype(precision)) for a in case.arrays())
        donated = DONATED if case.train else ()
        return Program(program(case, graph, implementation, unroll), (params, rest, *inputs), donated)

    found: dict[str, Make] = {"xla": lambda: make("xla")}
    if case.family == "recurrent":
        return found | {f"xla unroll {UNROLL}": lambda: make("xla", UNROLL), "triton": lambda: make("triton")}
    return found | {"zoo": lambda: make(None)}


def figures(make: Make, device: str, precision: str) -> dict[str, Any]:
    """What one contender's program launches, moves and computes, and its time by the model of the device."""
    with kernels.target(device):
        made = make()
    with launch.recording() as calls:
        compiled = aot.compile_for(device, made.function, *made.shapes, donate=made.donated)
    found = counting.figures(compiled, device, precision, recurrent_model.persistent_kernels(calls, device))
    return found | {"spilled_bytes": counting.spilled(calls, device) if calls else None}


def row_of(case: Case | ModelCase, device: str, precision: str) -> dict[str, Any]:
    """A case's entry in the record."""
    dtype = jnp.dtype(precision)
    row: dict[str, Any] = {"name": case.name, "dtype": precision}
    if isinstance(case, Case):
        least, flops = case.bytes(dtype.itemsize), case.flops
        row |= {"operator": case.operator, "bytes": least, "flops": flops}
        row["floor_seconds"] = device_model.floor_seconds(device, precision, least, flops)
        programs = operator_programs(case, device, dtype)
    else:
        row |= {"model": case.model, "train": case.train, "examples": case.shape[0]}
        row |= {"bytes": None, "flops": case.flops(), "floor_seconds": None}
        programs = model_programs(case, device, dtype)
    row["contenders"] = {}
    for name, make in programs.items():
        try:
            row["contenders"][name] = figures(make, device, precision)
        except Exception as problem:  # what cannot be compiled is a row of the table, not the end of the run
            row["contenders"][name] = {"failed": refusal(name, problem)}
    return row


def cases_of(kind: str) -> list[Case] | list[ModelCase]:
    """The most interesting first, since a run may stop before the last."""
    if kind == "operators":
        return operator_cases(False, "cuda")
    cases = model_cases(False, "cuda")
    leading = len(FIRST) + len(PUBLIC)
    return cases[:leading] + sorted(cases[leading:], key=lambda case: not case.train)


def header(kind: str, device: str) -> dict[str, Any]:
    """The record without its cases."""
    assumed = device_model.constants(device)
    return result.begun(f"compiled-{kind}", "compiled", machine.compiled_for(device, "flax")) | {
        "protocol": PROTOCOL,
        "model": {
            "bytes_per_second": assumed["memory"],
            "flops_per_second": {precision: assumed[precision] for precision in device_model.PRECISIONS},
            "seconds_per_launch": assumed["launch"],
        },
    }


def source_digest() -> str:
    """The digest of everything that the figures depend on. One kernel is imported by a computed name."""
    return sources.digest("experiments.comparison.compiled", "kernels.linear_act.pallas", tuned=True)


def part(case: Case | ModelCase, device: str, precision: str | None) -> resume.Part:
    dtype = precision or case.precision or "bfloat16"
    needs = {"source": source_digest(), "options": options(case, dtype)}
    return resume.Part(case.name, needs, functools.partial(row_of, case, device, dtype))


def options(case: Case | ModelCase, precision: str) -> dict[str, Any]:
    """What the figures of a case depend on besides its sources."""
    return {"dtype": precision} | ({"donated": True} if isinstance(case, ModelCase) and case.train else {})


def line(row: dict[str, Any]) -> str:
    parts = []
    for name, found in row["contenders"].items():
        counts = lambda f: f"{f['kernels']:,} kernels, {f['bytes'] / 1e9:.3g} GB, modelled {f['modelled_seconds'] * 1e3:.3g} ms"
        parts.append(f"{name} {found['failed'] if 'failed' in found else counts(found)}")
    return f"{row['name']}: {'; '.join(parts)}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.comparison.compiled", description=__doc__.split("\n\n")[0])
    parser.add_argument("kind", choices=("operators", "models"))
    parser.add_argument("--only", default="", help="only the cases whose name contains this")
    resume.add_minutes(parser)
    parser.add_argument("--device", default="h200", help=f"one of {', '.join(device_model.NAMES)}")
    parser.add_argument("--precision", choices=device_model.PRECISIONS, help="the default is the case's own, or bfloat16")
    parser.add_argument("--out", type=pathlib.Path, help="folder for the result (experiments/results/DEVICE)")
    given = parser.parse_args(arguments)
    device, until = device_model.kind_of(given.device), resume.deadline(given.minutes)
    parts = [part(case, device, given.precision) for case in cases_of(given.kind)]
    wanted = resume.chosen(parts, given.only)
    path = (given.out or result.RESULTS / device) / f"compiled-{given.kind}.json"
    resume.complete(path, header(given.kind, device), parts, wanted, until=until, saved=resume.said(line))
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
