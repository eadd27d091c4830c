"""Arrays of more than 2**31 elements: of each launch a few blocks run, and only the addresses that they touch are of interest.

Blocks at the beginning, at a third, at two thirds and at the end: an offset that overflows 32 bits would be outside the array.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.execution.case import GPUS, Case
from experiments.execution.cases import recurrent
from experiments.execution.running import OUTSIDE, Found
from kernels.commands.cases import (
    GATES,
    batch_norm_act,
    both_ways,
    lenet5,
    linear_act,
    local_response_norm,
    loss,
    max_pool,
    mlp,
)
from kernels.runtime import devices, launch
from kernels.verification import ptx

DTYPE = "bfloat16"
LIMIT = 40_000  # instructions of a block: one that waits for blocks that do not run ends there, and so do long loops


def cases() -> list[Case]:
    found = [
        max_pool((13_000, 55, 55, 64)),
        max_pool((1, 70_001, 35_001, 1)),
        local_response_norm((40_000, 27, 27, 96)),
        loss(70_000, 32_000, 0.1, np.zeros(70_000, np.int32)),
        linear_act(9_000_000, 256, 256, "gelu"),
        linear_act(100, 1_100, 2**21, "relu"),
        mlp(30_000_000, 80, 64, 80, "relu", None),
        batch_norm_act((1_400, 112, 112, 128), residual=True, running=True),
        lenet5(2_200_000, 1, 10),
        *(recurrent(cell, 16, 9_000_000, 64, 16, reverse=reverse) for cell in GATES for reverse in (False, True)),
    ]
    return [Case("large", what, dtypes=(DTYPE,)) for what in found]


def _shapes(case: Case) -> dict[str, Any]:
    is_shape = lambda node: isinstance(node, tuple) and all(isinstance(n, int) for n in node)
    return jax.tree.map(lambda dims: jax.ShapeDtypeStruct(dims, jnp.bfloat16), dict(case.what.shapes), is_leaf=is_shape)


def launches(case: Case, architecture: str) -> list[launch.Launch]:
    """What the operator launches, forward and backward; nothing is computed."""
    fn: Callable[[Any], Any] = lambda arguments: case.what.call(arguments, "interpret")
    given = _shapes(case)
    with devices.target(GPUS[architecture]), launch.recording() as calls:
        if case.what.backward:
            jax.eval_shape(both_ways(fn), given, jax.eval_shape(lambda a: case.what.call(a, "xla"), given))
        else:
            jax.eval_shape(fn, given)
    return list(dict.fromkeys(calls))


def run(case: Case, dtype: str, architecture: str, seeds: int = 1) -> dict[str, Any]:
    """A case's entry in the record."""
    del dtype, seeds
    seen = [_executed(call, architecture) for call in launches(case, architecture)]
    short = max(reached for _, reached in seen) < 2**31
    faults = ["no element beyond the first 2**31 was touched: the case shows nothing"] * short
    kernels = [dataclasses.asdict(found) for found, _ in seen]
    return {"error": None, "tolerance": None, "refused": None, "faults": faults, "kernels": kernels}


def _executed(call: launch.Launch, architecture: str) -> tuple[Found, int]:
    """What was seen of some blocks, and the furthest element of an array that they touch."""
    capability = (int(architecture[3:-1]), int(architecture[-1]))
    program, shared_memory = ptx.program(call, capability)
    arrays = list(zip(call.shapes, call.dtypes, strict=True))
    inputs = [np.broadcast_to(np.zeros((), np.dtype(d)), shape) for shape, d in arrays[: call.inputs]]
    outputs = [(shape, np.dtype(d)) for shape, d in arrays[call.inputs :]]
    sizes = {f"input {i}": a.itemsize for i, a in enumerate(inputs)}
    sizes |= {f"output {i}": d.itemsize for i, (_, d) in enumerate(outputs)}
    last = math.prod(call.grid) - 1
    found = Found(call.kernel.fn.__name__, launches=1, threads=program.kernel.threads)
    begun, reached = time.monotonic(), 0
    for number in sorted({0, last // 3, 2 * last // 3, last}):
        options = {"only": [number], "addresses": True, "limit": LIMIT, "shared_memory": shared_memory}
        try:
            _, report = ptx.execute(program, call.grid, inputs, outputs, **options)  # type: ignore[arg-type]
        except ptx.ExecutionError as error:
            found.faults.append(f"block {number}: {type(error).__name__}: {error}")
            found.out_of_bounds += isinstance(error, OUTSIDE)
            continue
        found.blocks += 1
        found.instructions += report.executed.total()
        reached = max([reached, *(high // sizes[name] for (name, _), (_, high) in report.touched.items())])
    found.seconds = round(time.monotonic() - begun, 3)
    return found, reached
