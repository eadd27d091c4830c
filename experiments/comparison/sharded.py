"""A model's training step compiled for many absent GPUs: plain data parallel, and with state that is sharded within each host.

Compiled by XLA for a topology of hosts with eight H200s each (or fewer, where there are fewer devices), with its own code and
AdamW, float32 parameters and optimizer state. "replicated": every device holds the whole state, and gradients are all-reduced.
"sharded": the devices of a host hold a part each of every parameter of 16,384 values and more and of its optimizer state, as
ZeRO and FSDP have it; XLA gathers a parameter where it is needed. Batches are split over all devices in both.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rich import box
from rich.console import Console
from rich.table import Column, Table

import kernels
import zoo
from experiments.comparison.models import ModelCase
from experiments.comparison.programs import loss_of
from experiments.measuring import collectives, interconnect, machine, result
from experiments.measuring.interconnect import PER_HOST
from kernels.runtime import devices as runtime_devices
from kernels.runtime import dispatch, gpus
from kernels.runtime.sizes import cdiv
from kernels.verification import aot

AXES = ("host", "device")
LAYOUTS = ("replicated", "sharded")
SMALLEST_SPLIT = 2**14  # as in the trainer's mesh
PROTOCOL = (
    "the training step (loss, gradients, AdamW) compiled by XLA for these devices, not run; collectives, bytes and "
    "dependencies counted in the scheduled program; seconds modelled"
)
_kept_alive: list[Any] = []


@functools.cache
def mesh_of(kind: str, count: int) -> Mesh:
    """Absent devices of a kind in hosts of eight, as a mesh [host, device]."""
    here = min(count, PER_HOST)
    description = aot.target_config(gpus.find(kind))
    topology = topologies.get_topology_desc(platform="cuda", target_config=description, topology=f"1x{count // here}x{here}")
    _kept_alive.append(topology)  # its devices do not keep it
    return Mesh(np.array(topology.devices).reshape(count // here, here), AXES)


def sharding_of(mesh: Mesh, shape: tuple[int, ...], layout: str) -> NamedSharding:
    """Where a parameter, or what the optimizer keeps of it, lives."""
    spec: list[str | None] = [None] * len(shape)
    here = mesh.shape["device"]
    divides = [axis for axis, size in enumerate(shape) if size % here == 0 and size]
    if layout == "sharded" and np.prod(shape) >= SMALLEST_SPLIT and divides:
        spec[max(divides, key=lambda axis: shape[axis])] = "device"
    return NamedSharding(mesh, PartitionSpec(*spec))


def compile_step(case: ModelCase, device: str, count: int, layout: str, precision: str) -> jax.stages.Compiled:
    """The training step of `case`, whose batch is that of one device, on `count` of them."""
    mesh = mesh_of(device, count)
    whole = dataclasses.replace(case, shape=(case.shape[0] * count, *case.shape[1:]))
    graph, params, rest = zoo.split(zoo.training_view(nnx.eval_shape(lambda: whole.build(jnp.dtype(precision)))))
    optimizer = optax.adamw(1e-3)

    def step(params: Any, state: Any, rest: Any, x: jax.Array, target: jax.Array) -> Any:
        def loss(params: Any) -> tuple[jax.Array, Any]:
            model = nnx.merge(graph, params, rest, copy=True)
            return loss_of(whole, model, x, target), zoo.split(model)[2]

        with kernels.use("xla"):
            (value, new), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(gradient, state, params)
        return value, optax.apply_updates(params, updates), state, new

    held = (params, jax.eval_shape(optimizer.init, params), rest)
    places = jax.tree.map(lambda a: sharding_of(mesh, a.shape, layout), held)
    given = jax.tree.map(lambda a, place: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), held, places)
    batch = NamedSharding(mesh, PartitionSpec(AXES))
    inputs = [jax.ShapeDtypeStruct(a.shape, a.dtype(jnp.dtype(precision)), sharding=batch) for a in whole.arrays()]
    scalar = NamedSharding(mesh, PartitionSpec())
    with runtime_devices.target(device), dispatch.as_if_checked():
        jitted = jax.jit(step, donate_argnums=(0, 1, 2), out_shardings=(scalar, *places))
        lowered = jitted.trace(*given, *inputs).lower()
        cuda = str(aot.toolkit(gpus.find(device).compute_capability[0]))
        return lowered.compile(compiler_options={"xla_gpu_cuda_data_dir": cuda})


def figures(compiled: jax.stages.Compiled, case: ModelCase, device: str, count: int, precision: str) -> dict[str, Any]:
    """What a compiled step says between devices, what may overlap, its memory, and the model of its time."""
    here = min(count, PER_HOST)
    found, compute, launches = collectives.collectives_of(str(compiled.as_text()), device, precision, here, count)
    groups: dict[tuple[str, int, int], collections.Counter] = collections.defaultdict(collections.Counter)
    for one in found:
        groups[one.kind, one.devices, one.hosts].update(
            count=one.times,
            bytes=one.times * one.bytes,
            sent_bytes=round(one.times * interconnect.sent(one)),
            beside_bytes=one.times * one.bytes * (one.beside > 0),
            free_bytes=one.times * one.bytes * (one.free_seconds >= interconnect.seconds(one)),
        )
    rows = [
        {"kind": kind, "devices": devices, "hosts": hosts, **dict(counts)}
        for (kind, devices, hosts), counts in sorted(groups.items(), key=lambda item: -item[1]["bytes"])
    ]
    memory: Any = compiled.memory_analysis()
    parts = {name: int(getattr(memory, f"{name}_size_in_bytes")) for name in ("argument", "output", "alias", "temp")}
    state = parts["alias"]
    memory_bytes = parts["argument"] + parts["output"] - parts["alias"] + parts["temp"]
    return {
        "collectives": rows,
        "state_bytes": state,
        "memory_bytes": memory_bytes,
        "model": interconnect.model(found, compute, launches, case.shape[0]),
    }


def record_of(case: ModelCase, device: str, count: int, precision: str) -> dict[str, Any]:
    """The record of one model on `count` devices, both layouts."""
    record = result.begun("sharded", "compiled", machine.compiled_for(device, "flax", "optax"))
    constants = {name: {"value": c.value, "unit": c.unit, "source": c.source} for name, c in interconnect.CONSTANTS.items()}
    record |= {"protocol": PROTOCOL, "constants": constants, "model": case.model, "dtype": precision}
    record |= {"batch_per_device": case.shape[0], "shape": list(case.shape[1:]), "devices": count}
    record["layouts"] = {
        layout: figures(compile_step(case, device, count, layout, precision), case, device, count, precision)
        for layout in LAYOUTS
    }
    return record


def show(record: dict[str, Any], console: Console) -> None:
    """Two tables, 80 columns wide: what was compiled, and what was modelled from it."""
    hosts = cdiv(record["devices"], PER_HOST)
    said = f"{record['model']} training step, {record['batch_per_device']} examples on each of {record['devices']} devices"
    console.print(f"{said} ({hosts} host{'s' * (hosts > 1)}), {record['dtype']}, AdamW", soft_wrap=True)
    console.print(f"compiled for {record['device']} (not measured); MB of each device in a step", soft_wrap=True)
    table = Table("state", "collective", "group", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for head in ("count", "MB", "sent", "beside", "free"):
        table.add_column(head, justify="right")
    for layout, found in record["layouts"].items():
        for number, row in enumerate(found["collectives"]):
            group = f"{row['devices']}/{row['hosts']}"
            sizes = [f"{row[f'{name}bytes'] / 1e6:.2f}" for name in ("", "sent_", "beside_", "free_")]
            last = number == len(found["collectives"]) - 1
            table.add_row("" if number else layout, row["kind"], group, str(row["count"]), *sizes, end_section=last)
    console.print(table)
    console.print(
        "group: devices, and hosts that they are of. sent: what a device sends at least.\n"
        "beside: of collectives between whose start and done the schedule has kernels.\n"
        "free: of those with enough kernels to hide them that neither need their result\n"
        "nor are needed by them, by the operands of the HLO."
    )
    for layout, found in record["layouts"].items():
        state, memory = found["state_bytes"] / 1e6, found["memory_bytes"] / 1e9
        console.print(f"{layout}: {state:,.1f} MB of state and {memory:.2f} GB in all on each device", highlight=False)
    table = Table(Column("modelled", no_wrap=True, min_width=22))
    for head in ("kernels, ms", "waits, ms", "efficiency", "90 % from"):
        table.add_column(head, justify="right")
    for layout, found in record["layouts"].items():
        for name, words in (("in_a_row", "sequential"), ("overlapped", "overlapped")):
            row = found["model"][name]
            times = f"{found['model']['compute_seconds'] * 1e3:.2f}", f"{row['waits_seconds'] * 1e3:.2f}"
            table.add_row(f"{layout}, {words}", *times, f"{row['efficiency']:.1%}", f"{row['smallest_batch']:,}")
    console.print(table)
    for name, constant in record["constants"].items():
        console.print(f"{name}: {constant['value']:g} {constant['unit']} ({constant['source']})", highlight=False)
