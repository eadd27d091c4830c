"""A model of the time of persistent recurrent kernels: the latencies of a step, added up; it ignores tuning."""

from __future__ import annotations

import collections
import math
import statistics

import kernels
from experiments.measuring.device_model import constants
from kernels.recurrent import config
from kernels.recurrent.cells import CELLS
from kernels.runtime import launch


def step_seconds(kind: str, plan: config.Plan, inputs: int, item_size: int, backward: bool) -> dict[str, float]:
    """The parts of one step, one after another: `inputs` is 2 in a wavefront, where the layer below is multiplied as well."""
    k, depth = constants(kind), plan.padded_hidden * inputs
    passes = 3 if item_size == 4 else 1
    exchanged = depth * plan.batch * (2 * 4 if backward else item_size)  # parts are float32, written and read
    transfer = max(exchanged / k["l2_bytes_per_core"], exchanged * math.prod(plan.grid) / k["l2_bytes"])
    weights = config.ROWS * depth * item_size * passes / k["shared_memory_bytes"]
    arithmetic = config.ROWS * plan.batch * depth * passes * (item_size / 2) / k["multiply_adds"]
    cycles = {
        "barrier": k["barrier_latencies"] * k["l2_far_latency"] + k["arrival"] * plan.group,
        "exchange": k["l2_far_latency"] + transfer,
        "product": max(weights, arithmetic),
        "gates": k["gates"],
    }
    return {part: number / k["clock"] for part, number in cycles.items()}


def persistent_kernels(calls: list[launch.Launch], kind: str) -> dict[str, tuple[float, float]]:
    """Of each persistent kernel among the launches of a program, by its function's name: seconds for its steps, one after
    another, and the operations of its products; the mean where it is launched at several sizes.
    """
    found = collections.defaultdict(list)
    for call in calls:
        of = dict(call.constants)
        if "TIME" not in of:
            continue
        layers, gates, item = of["LAYERS"], CELLS[of["CELL"]].gates, call.dtypes[0].itemsize
        with kernels.target(kind):
            plan = config.plan(gates, of["HIDDEN"], of["BATCH"], of["DIRECTIONS"], item, layers)
        assert isinstance(plan, config.Plan)  # or it would not have been launched
        parts = step_seconds(kind, plan, min(layers, 2), item, "backward" in call.kernel.__name__)
        products = of["DIRECTIONS"] * (2 * layers - 1)  # a layer above the first multiplies what is below it as well
        operations = 2.0 * of["TIME"] * of["BATCH"] * products * gates * of["HIDDEN"] ** 2
        found[call.kernel.__name__].append(((of["TIME"] + layers - 1) * sum(parts.values()), operations))
    return {name: tuple(map(statistics.mean, zip(*rows, strict=True))) for name, rows in found.items()}  # type: ignore[misc]
