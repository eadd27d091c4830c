"""Where the time of a model must go, before anyone has run it: python -m experiments.inspect MODEL.

Compiles a training step (or inference) for a GPU that need not be there, with XLA alone and with the hand-written kernels, and
prints and draws for both: kernels launched, bytes moved and the time the memory needs for them, by kind of work. Figures are
compiled, not measured. Written to experiments/results/DEVICE/inspect-MODEL.json and, with --out, to another folder.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import datetime
import importlib.metadata
import json
import pathlib
import re
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from rich.console import Console
from rich.table import Table

import kernels
import zoo
from experiments.errors import UserError, run
from kernels.verification import aot, traffic

DEVICES = {"h200": "nvidia-h200"}
BANDWIDTH = {"nvidia-h200": 4.3e12}  # bytes per second that well-written kernels reach; 4.8e12 on paper
BATCH = {"lenet": 4096, "gan": 4096, "vgg": 64, "recurrent": 64}  # by family; 256 for the rest
# The first pattern found in a kernel's origin names its kind of work; the order matters. The "transpose(" that stands for a
# gradient in a scope is no transposition.
KINDS = (
    ("collective", r"all-reduce|all-gather|reduce-scatter|collective-permute"),
    ("optimizer", r"optimizer"),
    ("norm", r"batch_norm_act|local_response_norm|batch_norm"),
    ("pooling", r"max_pool|avg_pool|adaptive|reduce_window|select_and_scatter"),
    ("loss", r"softmax_cross_entropy|softplus"),
    ("recurrent", r"\b(lstm|gru|rnn)\b"),
    ("convolution", r"__cudnn\$conv|conv_general_dilated|\bconv\b"),
    ("matrix product", r"dot_general|__cublas|linear_act|\bmlp\b|lenet5"),
    ("activation", r"relu|tanh|gelu|sigmoid|logistic|max\b|dropout|bernoulli|add\b|\bgt\b|select_n"),
    ("reductions", r"reduce_sum"),
    ("copies", r"^copy|transpose|convert|concatenate|pad\b|reshape|broadcast"),
)


def kind_of(kernel: traffic.Kernel) -> str:
    """By where the kernel comes from; where that says nothing but that it adds up or copies, by all that XLA fused into it."""

    def first(origin: str) -> str:
        return next((kind for kind, pattern in KINDS if re.search(pattern, origin.replace("transpose(", ""))), "other")

    own = first(f"{kernel.kind} {kernel.scope}")
    if own not in ("reductions", "copies", "other"):
        return own
    found = first(" ".join((kernel.kind, kernel.instruction, kernel.scope, *kernel.parts)))
    return own if found == "other" else found


def abstract_state(name: str, implementation: str | None, dtype: Any) -> tuple[Any, Any, Any]:
    """Structure, parameters and other state of a model in training mode, as shapes: nothing is allocated."""
    model = nnx.eval_shape(lambda: zoo.create_model(name, dtype=dtype, implementation=implementation, rngs=0))
    return zoo.split(zoo.training_view(model))


def training_step(graph: Any, family: str, aux_weight: float = 0.3) -> Callable:
    """step(params, rest, momentum, batch): SGD with momentum, cross-entropy, or the two losses of a GAN."""
    optimizer = optax.sgd(0.1, momentum=0.9)

    def loss(params: Any, rest: Any, batch: dict[str, jax.Array]) -> tuple[jax.Array, Any]:
        model = nnx.merge(graph, params, rest, copy=True)
        if family == "gan":
            real, fake = model.discriminator(batch["image"]), model.discriminator(model(batch["input"]))
            value = jax.nn.softplus(-real).mean() + jax.nn.softplus(fake).mean()
        else:
            outputs = model(batch["input"])
            logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
            cross_entropy = lambda scores: kernels.softmax_cross_entropy(scores, batch["label"]).mean()
            value = cross_entropy(logits) + aux_weight * sum(cross_entropy(a) for a in auxiliary if a is not None)
        return value, zoo.split(model)[2]

    def step(params: Any, rest: Any, state: Any, batch: dict[str, jax.Array]) -> tuple[Any, Any, Any, jax.Array]:
        (value, rest), gradient = jax.value_and_grad(loss, has_aux=True)(params, rest, batch)
        with jax.named_scope("optimizer"):
            updates, state = optimizer.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return params, rest, state, value

    step.init = optimizer.init  # type: ignore[attr-defined]
    return step


def example_batch(name: str, batch_size: int, graph: Any, params: Any, rest: Any, dtype: Any) -> dict[str, Any]:
    """Shapes of one batch."""
    info = zoo.model_info(name)
    shape = (batch_size, *info.input_shape)
    tokens = len(info.input_shape) == 1 and info.family == "recurrent"
    inputs = jax.ShapeDtypeStruct(shape, jnp.int32 if tokens else dtype)
    outputs = jax.eval_shape(lambda p, r, x: nnx.merge(graph, p, r, copy=True)(x), params, rest, inputs)
    if info.family == "gan":
        return {"input": inputs, "image": outputs}
    first = outputs[0] if isinstance(outputs, tuple) else outputs
    return {"input": inputs, "label": jax.ShapeDtypeStruct(first.shape[:-1], jnp.int32)}


def compile_model(name: str, device: str, implementation: str | None, mode: str, batch_size: int, dtype: Any) -> dict[str, Any]:
    """One compiled program's figures."""
    scope = contextlib.nullcontext() if implementation is None else kernels.use(implementation)
    with scope, kernels.target(device):
        graph, params, rest = abstract_state(name, implementation, dtype)
        batch = example_batch(name, batch_size, graph, params, rest, dtype)
        if mode == "train":
            step = training_step(graph, zoo.model_info(name).family)
            state = jax.eval_shape(step.init, params)  # type: ignore[attr-defined]
            compiled = aot.compile_for(device, step, params, rest, state, batch, donate=(0, 1, 2))
        else:
            graph = zoo.split(zoo.evaluation_view(nnx.merge(graph, params, rest)))[0]
            infer = lambda p, r, x: nnx.merge(graph, p, r, copy=True)(x)
            compiled = aot.compile_for(device, infer, params, rest, batch["input"])
    launched = traffic.kernels_of(str(compiled.as_text()))
    kinds: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for kernel in launched:
        kinds[kind_of(kernel)].update(kernels=kernel.times, bytes=kernel.bytes * kernel.times)
    count, moved = traffic.total(launched)
    return {
        "kernels": count,
        "hand_written": sum(k.times for k in launched if "triton_kernel_call" in k.kind or "mosaic" in k.kind),
        "bytes": moved,
        "memory_ms": round(moved / BANDWIDTH[device] * 1e3, 3),
        "temporary_bytes": getattr(compiled.memory_analysis(), "temp_size_in_bytes", None),
        "kinds": {kind: dict(figures) for kind, figures in sorted(kinds.items(), key=lambda item: -item[1]["bytes"])},
    }


def inspect(name: str, device: str, implementations: dict[str, str | None], mode: str, batch_size: int, dtype: Any) -> dict:
    """The record that is written: figures of each implementation, and what they are figures of."""
    return {
        "experiment": f"inspect-{name}",
        "measured": False,
        "device": device,
        "model": name,
        "mode": mode,
        "batch_size": batch_size,
        "dtype": jnp.dtype(dtype).name,
        "date": datetime.date.today().isoformat(),
        "versions": {package: importlib.metadata.version(package) for package in ("jax", "jaxlib", "triton", "jax-triton")},
        "bandwidth": BANDWIDTH[device],
        "implementations": {
            label: compile_model(name, device, chosen, mode, batch_size, dtype) for label, chosen in implementations.items()
        },
    }


def show(record: dict[str, Any], console: Console) -> None:
    found = record["implementations"]
    table = Table(
        title=f"{record['model']}, {record['mode']}, batch {record['batch_size']}, {record['dtype']}, compiled for "
        f"{record['device']} (not measured)"
    )
    table.add_column("work")
    for label in found:
        for head in ("kernels", "GB", "ms of memory"):
            table.add_column(f"{label}: {head}", justify="right")
    rows = list(dict.fromkeys(kind for figures in found.values() for kind in figures["kinds"]))
    for kind in [*rows, "all"]:
        cells = []
        for figures in found.values():
            of = figures if kind == "all" else figures["kinds"].get(kind, {"kernels": 0, "bytes": 0})
            cells += [str(of["kernels"]), f"{of['bytes'] / 1e9:.2f}", f"{of['bytes'] / record['bandwidth'] * 1e3:.2f}"]
        table.add_row(kind, *cells, end_section=kind == (rows or ["all"])[-1])
    console.print(table)
    for label, figures in found.items():
        console.print(
            f"{label}: {figures['hand_written']} hand-written kernels, {figures['temporary_bytes'] / 1e9:.2f} GB temporary"
        )


def draw(record: dict[str, Any], path: pathlib.Path) -> None:
    """Bars of the memory's time by kind of work."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    found = record["implementations"]
    rows = list(dict.fromkeys(kind for figures in found.values() for kind in figures["kinds"]))
    figure, axes = pyplot.subplots(figsize=(8, 1.2 + 0.4 * len(rows)), layout="constrained")
    height = 0.8 / len(found)
    for i, (label, figures) in enumerate(found.items()):
        times = [figures["kinds"].get(kind, {"bytes": 0})["bytes"] / record["bandwidth"] * 1e3 for kind in rows]
        axes.barh([y + i * height for y in range(len(rows))], times, height, label=f"{label}, {figures['kernels']} kernels")
    axes.set_yticks([y + 0.4 - height / 2 for y in range(len(rows))], rows)
    axes.invert_yaxis()
    axes.set_xlabel(f"ms that device memory needs at {record['bandwidth'] / 1e12:g} TB/s")
    axes.set_title(f"{record['model']}, batch {record['batch_size']}, {record['mode']} (compiled, not measured)")
    axes.legend()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def summary(folder: pathlib.Path) -> str:
    """A Markdown table of the training steps inspected in a folder of results, as docs/kernels.md shows it."""
    lines = [
        "| training step | batch | kernels, XLA | with hand kernels | GB outside convolutions, XLA | with hand kernels |",
        "|---|---|---|---|---|---|",
    ]
    for path in sorted(folder.glob("inspect-*.json")):
        record = json.loads(path.read_text())
        if record["mode"] != "train":
            continue
        cells = [[], []]  # type: list[list[str]]
        for label in ("xla", "hand-written"):
            found = record["implementations"][label]
            elsewhere = found["bytes"] - found["kinds"].get("convolution", {"bytes": 0})["bytes"]
            cells[0].append(str(found["kernels"]))
            cells[1].append(f"{elsewhere / 1e9:.2f}")
        lines.append(f"| {record['model']} | {record['batch_size']} | {' | '.join(cells[0] + cells[1])} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.inspect", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("model", help="a name from `python -m zoo list`")
    parser.add_argument("--device", default="h200", help=f"one of {', '.join(DEVICES)}")
    parser.add_argument("--implementation", default="both", choices=["both", "auto", "xla", "triton"])
    parser.add_argument("--mode", default="train", choices=["train", "infer"])
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--precision", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--out", type=pathlib.Path, help="folder for the JSON file and the picture")
    given = parser.parse_args(arguments)
    if given.device not in DEVICES:
        raise UserError(f"--device: {given.device!r} given, it is one of {', '.join(DEVICES)}")
    if given.batch_size is not None and given.batch_size < 1:
        raise UserError(f"--batch-size: {given.batch_size} given, a whole number of at least 1 is needed")
    info = zoo.model_info(given.model)
    # Persistent kernels run only where they are named.
    chosen: dict[str, str | None] = {"xla": "xla", "hand-written": "triton" if info.family == "recurrent" else None}
    if given.implementation != "both":
        chosen = {given.implementation: None if given.implementation == "auto" else given.implementation}
    device = DEVICES[given.device]
    batch_size = given.batch_size or BATCH.get(info.family, 256)
    record = inspect(given.model, device, chosen, given.mode, batch_size, jnp.dtype(given.precision))
    show(record, Console())
    out = given.out or pathlib.Path(__file__).parent / "results" / device
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{record['experiment']}{'' if given.mode == 'train' else '-infer'}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    draw(record, path.with_suffix(".png"))
    print(f"written: {path} and {path.with_suffix('.png').name}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
