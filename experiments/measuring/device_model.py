"""What turns counts into time: for each kind of device the rates and latencies that are assumed, and where each is from.

A new kind is a new entry of MODELS; `kernels/verification/aot.py` has to know it too, to compile for it.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from experiments.errors import UserError, nearest


class Constant(NamedTuple):
    value: float
    unit: str
    source: str


# A persistent recurrent kernel's step, see measuring/recurrent_model.py.
_HOPPER_STEP = {
    "clock": Constant(1.755e9, "cycles a second", "boost clock of the H100, whose chip the H200 has"),
    "l2_latency": Constant(263, "cycles", "assumed: about what is published for an H100; not checked against a source"),
    "barrier_latencies": Constant(3, "L2 latencies", "assumed: stores acknowledged, arrival, the poll that sees the last one"),
    "arrival": Constant(1, "cycle a block", "assumed: atomic additions to one address, one after another"),
    "l2_bytes_per_core": Constant(64, "bytes a cycle", "width of a multiprocessor's port"),
    "l2_bytes": Constant(3134, "bytes a cycle", "assumed: 5.5 TB/s for the whole chip; not checked against a source"),
    "shared_memory_bytes": Constant(128, "bytes a cycle", "32 banks of 4 bytes; the weights are read from there in every step"),
    "multiply_adds": Constant(
        2048, "a cycle", "16 bits, per multiprocessor; half as many in tf32, of which three passes are taken"
    ),
    "gates": Constant(300, "cycles", "assumed: two transcendental functions in turn, and the change of layout before them"),
}
MODELS: dict[str, dict[str, Constant]] = {
    "nvidia-h200": {
        **_HOPPER_STEP,
        "launch": Constant(2e-6, "seconds", "XLA's loop takes about 8 us a step where it launches four kernels"),
        "memory": Constant(4.3e12, "bytes a second", "what well-written kernels reach; 4.8e12 in NVIDIA's data sheet"),
        "link": Constant(64e9, "bytes a second", "PCIe 5 with 16 lanes, one way, on paper: NVIDIA H200 data sheet"),
        "special_functions": Constant(16, "a cycle", "per multiprocessor; CUDA C++ Programming Guide, Arithmetic Instructions"),
        "bfloat16": Constant(989e12, "operations a second", "dense, on paper: NVIDIA H200 data sheet"),
        "float16": Constant(989e12, "operations a second", "dense, on paper: NVIDIA H200 data sheet"),
        "float32": Constant(494e12, "operations a second", "dense, on paper: products in tf32: NVIDIA H200 data sheet"),
    }
}
PRECISIONS = ("bfloat16", "float16", "float32")
NAMES = {kind.removeprefix("nvidia-"): kind for kind in MODELS}  # on the command line
STEP = (*_HOPPER_STEP, "launch")  # what the model of recurrent layers takes


@functools.cache
def constants(kind: str) -> dict[str, float]:
    """The values for a kind of device, in seconds, bytes, operations and cycles."""
    return {name: constant.value for name, constant in MODELS[kind].items()}


def peaks(kind: str) -> dict[str, float]:
    """Operations a second of the tensor cores by precision."""
    return {precision: constants(kind)[precision] for precision in PRECISIONS}


def floor_seconds(kind: str, precision: str, moved: float, operations: float) -> float:
    """The longer of the bytes at the memory's rate and the operations at the peak."""
    return max(moved / constants(kind)["memory"], operations / constants(kind)[precision])


def seconds(kind: str, moved: float, launches: float) -> float:
    """Of bytes at the memory's rate and of the launches."""
    return moved / constants(kind)["memory"] + launches * constants(kind)["launch"]


def kind_of(name: str) -> str:
    """The kind that a command-line name, such as "h200", stands for.

    Raises:
      UserError: there is none.
    """
    if name not in NAMES:
        raise UserError(nearest("--device", name, NAMES))
    return NAMES[name]
