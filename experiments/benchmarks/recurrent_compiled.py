"""Persistent recurrent kernels compiled for an H200, and a model of their time.

python -m experiments.benchmarks.recurrent_compiled runs nothing on a GPU. It writes the result file recurrent-compiled, from
which docs/recurrent.md has its tables: the resources of the kernels at each size, the kernels of XLA's loop, and the time that
`measuring/recurrent_model.py` predicts, to be compared with a measurement.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp

import kernels
from experiments.measuring import counting, device_model, recurrent_model, result
from kernels import CellWeights
from kernels.recurrent import config
from kernels.recurrent.cells import CELLS
from kernels.recurrent.xla import unrolled
from kernels.runtime import dispatch, launch
from kernels.verification import aot, residency

DEVICE = "nvidia-h200"


@dataclasses.dataclass(frozen=True)
class Shape:
    """A shape to model: sequences, steps, features, hidden units, layers, directions."""

    batch: int
    steps: int
    features: int
    hidden: int
    layers: int = 1
    directions: int = 1
    cell: str = "lstm"
    dtype: str = "float16"


SHAPES = (
    Shape(10, 512, 128, 256, layers=6),
    Shape(10, 512, 128, 256, layers=6, directions=2),
    Shape(10, 512, 128, 256, layers=6, dtype="float32"),
    Shape(16, 1024, 768, 768),
    Shape(32, 128, 256, 256),
    Shape(64, 256, 1024, 1024),
    Shape(8, 256, 1024, 256, layers=6, cell="rnn"),
)


def program(shape: Shape, implementation: str, backward: bool) -> tuple[Any, Any, Any]:
    """A function of layers and input, and the shapes of both."""
    columns = CELLS[f"{shape.cell}_tanh" if shape.cell == "rnn" else shape.cell].gates * shape.hidden
    above = shape.directions * shape.hidden
    of: Any = lambda *dims: jax.ShapeDtypeStruct(dims, jnp.dtype(shape.dtype))
    weights = lambda features: CellWeights(of(features, columns), of(shape.hidden, columns), of(columns), of(columns))
    stack = [(weights(above if layer else shape.features),) * shape.directions for layer in range(shape.layers)]
    x = of(shape.batch, shape.steps, shape.features)

    def forward(stack, x):
        return getattr(kernels, shape.cell)(x, stack, implementation=implementation)[0]

    def both(stack, x):
        outputs, pullback = jax.vjp(forward, stack, x)
        return outputs, pullback(outputs)

    return both if backward else forward, stack, x


def launches(shape: Shape) -> list[launch.Launch]:
    """The launches of a forward and a backward pass with the persistent kernels."""
    with launch.recording() as calls, kernels.target(DEVICE):
        jax.eval_shape(*program(shape, "interpret", backward=True))
    return calls


def taken(call: launch.Launch) -> dict[str, Any]:
    """The resources that a compiled launch takes."""
    found = aot.kernel_resources(call, DEVICE)
    return {
        "blocks": math.prod(call.grid),
        "resident_blocks": residency.resident_blocks(call, dispatch.H200),
        "threads": 32 * call.num_warps,
        "registers": found.registers,
        "spilled": found.spilled,
        "shared_memory": found.shared_memory,
        "instructions": sorted(found.instructions),
    }


def ours(shape: Shape, layers_at_once: int) -> dict[str, Any]:
    """Dependent steps and modelled time of a pass, with `layers_at_once` layers per launch."""
    item = jnp.dtype(shape.dtype).itemsize
    gates = CELLS["rnn_tanh" if shape.cell == "rnn" else shape.cell].gates
    figures: dict[str, Any] = {"layers_at_once": layers_at_once, "steps": 0, "forward_ms": 0.0, "backward_ms": 0.0}
    for first in range(0, shape.layers, layers_at_once):
        layers = min(layers_at_once, shape.layers - first)
        with kernels.target(DEVICE):
            plan = config.plan(gates, shape.hidden, shape.batch, shape.directions, item, layers)
        assert isinstance(plan, config.Plan)
        steps = shape.steps + layers - 1
        figures["steps"] += steps
        for name, backward in (("forward", False), ("backward", True)):
            parts = recurrent_model.step_seconds(DEVICE, plan, 1 if layers == 1 else 2, item, backward)
            figures[f"{name}_ms"] += steps * sum(parts.values()) * 1e3
            figures[f"{name}_step_us"] = {part: seconds * 1e6 for part, seconds in parts.items()}
    return figures


def xla(shape: Shape, unroll: int = 1) -> dict[str, float]:
    """XLA's loop with `unroll` steps per iteration: kernels per step of the sequence (all layers), and their launches' time."""
    found = {}
    for name, backward in (("forward", False), ("both", True)):
        fn, *args = program(shape, "xla", backward)
        with unrolled(unroll):
            compiled = aot.compile_for(DEVICE, lambda *a, fn=fn: fn(*a), *args)
        count = sum(k.times for k in counting.kernels_of(compiled) if k.times > 1)
        found[f"{name}_kernels_per_step"] = count / shape.steps
        found[f"{name}_ms"] = count * device_model.constants(DEVICE)["launch"] * 1e3
    return found


def graphs(shape: Shape, command_buffer: str | None) -> dict[str, int]:
    """How XLA runs the loops of a pass: by the host step by step, a graph per step, or one graph for all steps."""
    options = {} if command_buffer is None else {"xla_gpu_enable_command_buffer": command_buffer}
    loops = {"by the host": 0, "a graph per step": 0, "one graph": 0}
    fn, *args = program(shape, "xla", backward=True)
    lines = aot.thunks_for(DEVICE, fn, *args, options=options).splitlines()
    for i, line in enumerate(lines):
        if "kWhile" not in line:
            continue
        depth = len(line) - len(line.lstrip())
        body = next(j for j in range(i, len(lines)) if lines[j].strip() == "body:")
        if depth:  # it is inside a graph itself
            loops["one graph"] += 1
        elif "kCommandBuffer" in lines[body + 1]:
            loops["a graph per step"] += 1
        else:
            loops["by the host"] += 1
    return loops


def sizes() -> list[dict[str, Any]]:
    """Every size from 64 to 1024 hidden units and 1 to 64 sequences: what the launches take, or why there is none."""
    rows = []
    for cell in ("lstm", "gru", "rnn"):
        for dtype in ("bfloat16", "float32"):
            for hidden in (64, 128, 256, 512, 1024):
                for batch in (1, 16, 64):
                    shape = Shape(batch, 8, hidden, hidden, cell=cell, dtype=dtype)
                    row: dict[str, Any] = {"cell": cell, "dtype": dtype, "hidden": hidden, "batch": batch}
                    try:
                        forward, backward = launches(shape)
                        row |= {"forward": taken(forward), "backward": taken(backward)}
                    except kernels.ImplementationError as error:
                        row["refused"] = re.sub(r".*interpret: ([^;)]*\)?[^;)]*).*", r"\1", str(error))
                    rows.append(row)
                    print(row, flush=True)
    return rows


def main() -> None:
    shapes = []
    for shape in SHAPES:
        calls = launches(shape)
        at_once = dict(calls[0].constants)["LAYERS"]
        shapes.append(
            dataclasses.asdict(shape)
            | {
                "launches": len(calls),
                "forward": taken(calls[0]),
                "backward": taken(calls[-1]),
                "ours": ours(shape, at_once),
                "layer_by_layer": ours(shape, 1),
                "xla": xla(shape),
            }
        )
        print(shapes[-1], flush=True)
    one = dataclasses.replace(SHAPES[0], layers=1)
    default = "FUSION,CUBLAS,CUDNN,CUSTOM_CALL,DYNAMIC_SLICE_FUSION"
    loops = {"default": graphs(one, None), "with WHILE": graphs(one, f"{default},WHILE")}
    assumed = device_model.MODELS[DEVICE]
    content = {
        "assumed": {name: assumed[name]._asdict() for name in device_model.STEP},
        "shapes": shapes,
        "xla_loops": loops,
        "xla_unrolled": {str(unroll): xla(one, unroll) for unroll in (1, 8, 32)},
        "sizes": sizes(),
    }
    print(result.save("recurrent-compiled", content, DEVICE))


if __name__ == "__main__":
    main()
