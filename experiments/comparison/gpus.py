"""What the kernels are on each GPU: python -m experiments.comparison.gpus [--device NAME ...] [--minutes N].

For every GPU of `kernels.runtime.gpus`, which need not be present: what `implementation=None` chooses for an operator,
whether batch norm's slices stay in the L2 cache, kernels and bytes beside XLA's, what a block of each kernel takes; and for
some of them a whole training step. Writes experiments/results/KIND/gpu-compiled.json, from which docs/gpus.md has its tables.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
from typing import Any

import jax
import jax.numpy as jnp

import kernels
from experiments.comparison import compiled
from experiments.comparison.models import zoo_case
from experiments.errors import UserError, run
from experiments.measuring import counting, device_model, machine, result, resume, sources
from kernels.batch_norm_act import config as batch_norm
from kernels.commands.cases import LARGE, Case, both_ways
from kernels.runtime import devices, dispatch, gpus, launch
from kernels.verification import aot, residency

NAME = "gpu-compiled"
BATCH_NORM = ((256, 56, 56, 256), (256, 28, 28, 512), (256, 14, 14, 1024))  # in ResNet-50 at batch 256
TRAINED = ("a100-80gb", "h100", "h200", "b200", "rtx-4090")
MODELS = ("resnet50", "lstm_lm")
REFUSALS = (kernels.ImplementationError, aot.CompilationError, residency.NotResidentError)


def cases() -> list[Case]:
    """One of each hand-written operator at the size of a model; three of batch norm."""
    first = {case.operator: case for case in reversed(LARGE)}
    sized = [_batch_norm(shape) for shape in BATCH_NORM]
    others = [case for operator, case in sorted(first.items()) if operator != "batch_norm_act"]
    return sized + others


def _batch_norm(shape: tuple[int, ...]) -> Case:
    given = {"x": shape, "scale": shape[-1:], "bias": shape[-1:], "residual": shape}
    return Case("batch_norm_act", f"{'x'.join(map(str, shape))} relu residual", given, options={"activation": "relu"})


def shapes_of(case: Case) -> dict[str, Any]:
    is_shape = lambda node: isinstance(node, tuple) and all(isinstance(n, int) for n in node)
    return jax.tree.map(lambda dims: jax.ShapeDtypeStruct(dims, jnp.bfloat16), dict(case.shapes), is_leaf=is_shape)


def program(case: Case, implementation: str | None) -> tuple[Any, tuple[Any, ...]]:
    fn = lambda arguments: case.call(arguments, implementation)
    given = shapes_of(case)
    if not case.backward:
        return fn, (given,)
    return both_ways(fn), (given, jax.eval_shape(lambda a: case.call(a, "xla"), given))


def counted(case: Case, device: str, implementation: str) -> dict[str, int]:
    function, given = program(case, implementation)
    launched, moved = counting.total(aot.compile_for(device, function, *given))
    return {"kernels": launched, "bytes": moved}


def launches(case: Case, device: str) -> list[dict[str, Any]]:
    """The resources that a block of each kernel takes, and how many blocks the device holds at once.

    Raises:
      one of REFUSALS: the kernels do not take this shape on this device.
    """
    function, given = program(case, "triton")
    with launch.recording() as calls, aot.lowering_for(device):
        jax.eval_shape(function, *given)
        here = devices.device()
    found = []
    for call in dict.fromkeys(calls):
        taken = aot.kernel_resources(call, device)
        found.append(
            {
                "kernel": call.kernel.fn.__name__,
                "blocks": math.prod(call.grid),
                "resident_blocks": residency.blocks_per_core(taken, call.num_warps, here) * here.cores,
                "threads": 32 * call.num_warps,
                "registers": taken.registers,
                "spilled": taken.spilled,
                "shared_memory": taken.shared_memory,
            }
        )
    return found


def chosen(case: Case) -> str:
    """What `implementation=None` chooses for the case on the device at hand."""
    function, given = program(case, None)
    with dispatch.choices_made() as made:
        jax.eval_shape(function, *given)
    (name,) = (name for (operator, _), name in made.items() if operator == case.operator)
    return name


def operator_row(case: Case, device: str) -> dict[str, Any]:
    row: dict[str, Any] = {"operator": case.operator, "shape": case.name, "refused": None, "ours": None, "launches": []}
    with kernels.target(device) as here:
        row["unchecked"] = chosen(case)
        with dispatch.as_if_checked():
            row["checked"] = chosen(case)
        row["resident"] = None
        if case.operator == "batch_norm_act":
            rows, channels = math.prod(case.shapes["x"][:-1]), case.shapes["x"][-1]
            row["resident"] = batch_norm.choose(rows, channels, 2, 1).resident
            row["resident_backward"] = batch_norm.choose(rows, channels, 2, 3).resident
    row["multiprocessors"] = here.cores
    row["xla"] = counted(case, device, "xla")
    try:
        row["launches"] = launches(case, device)
        row["ours"] = counted(case, device, "triton")
    except REFUSALS as refusal:
        row["refused"] = str(refusal)
    return row


def training_row(model: str, device: str) -> dict[str, Any]:
    return compiled.row_of(zoo_case(model, True, None), device, "bfloat16")


def parts(name: str) -> list[resume.Part]:
    device, needs = gpus.GPUS[name].kind, {"source": sources.digest("experiments.comparison.gpus", tuned=True)}
    part = lambda what, run, *arguments: resume.Part(what, needs, functools.partial(run, *arguments, device))
    found = [part(f"{case.operator} {case.name}", operator_row, case) for case in cases()]
    return found + [part(f"train {model}", training_row, model) for model in MODELS if name in TRAINED]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.comparison.gpus", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--device", action="append", help=f"one of {', '.join(gpus.GPUS)}; may be repeated")
    parser.add_argument("--only", default="", help="the rows whose name contains this: train, batch_norm_act, ...")
    resume.add_minutes(parser)
    given = parser.parse_args(arguments)
    until = resume.deadline(given.minutes)
    for name in given.device or ():
        device_model.kind_of(name)
    rows = {name: parts(name) for name in given.device or gpus.GPUS}
    wanted = resume.chosen([row for of in rows.values() for row in of], given.only)
    for name in rows:
        kind = gpus.GPUS[name].kind
        head = result.begun(NAME, "compiled", machine.compiled_for(kind, "flax"))
        saved = lambda _, part, name=name: print(f"{name}: {part}", flush=True)
        path = result.RESULTS / kind / f"{NAME}.json"
        if resume.complete(path, head, rows[name], wanted, field="rows", until=until, saved=saved).left:
            break
    return 0


if __name__ == "__main__":
    if jax.default_backend() != "cpu":
        raise UserError("JAX_PLATFORMS: cpu is needed to compile for GPUs that are not there")
    sys.exit(run(main))
