"""Turns counts into time: the rates and latencies assumed for each kind of device, with their sources.

Those of the H200 are given directly; those of the other GPUs in `kernels.runtime.gpus` follow from their data sheets or, where
these say nothing, from the H200.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from experiments.errors import UserError, nearest
from kernels.runtime import gpus


class Constant(NamedTuple):
    value: float
    unit: str
    source: str


# Public measurements; the files are read in each repository's main branch of 2026.
_BENCHES = "te42kyfo/gpu-benches"
_AZURE = "Azure/AI-benchmarking-guide, Azure_Results/ND_H200_v5_results.md: an H200"
# A persistent recurrent kernel's step, see measuring/recurrent_model.py.
_HOPPER_STEP = {
    "clock": Constant(1.98e9, "cycles a second", f"boost clock; an H200 under load in {_BENCHES}, gpu-roofline/h200.txt"),
    "l2_latency": Constant(265, "cycles", f"the partition at hand: {_BENCHES}, gpu-latency/h100_pcie.txt, 400 KB to 20 MB"),
    "l2_far_latency": Constant(470, "cycles", "across partitions: the same file, 32 to 47 MB, where it lists 461 to 478"),
    "barrier_latencies": Constant(
        3,
        "far L2 latencies",
        "assumed: stores acknowledged, arrival, the poll that sees the last one; blocks are in both partitions",
    ),
    "arrival": Constant(1, "cycle a block", "assumed: atomic additions to one address, one after another"),
    "l2_bytes_per_core": Constant(64, "bytes a cycle", "assumed: width of a multiprocessor's port"),
    "l2_bytes": Constant(
        4900, "bytes a cycle", f"9.7 TB/s read by a whole H200: {_BENCHES}, gpu-l2-cache/h200.txt, 10 to 40 MB"
    ),
    "shared_memory_bytes": Constant(128, "bytes a cycle", "32 banks of 4 bytes; the weights are read from there in every step"),
    "multiply_adds": Constant(
        2048, "a cycle", "16 bits, per multiprocessor; half as many in tf32, of which three passes are taken"
    ),
    "gates": Constant(
        300, "cycles", "assumed: two transcendental functions one after the other, and the change of layout before them"
    ),
}
MODELS: dict[str, dict[str, Constant]] = {
    "nvidia-h200": {
        **_HOPPER_STEP,
        "launch": Constant(
            2.4e-6, "seconds", f"64 KB kernels in a stream: {_BENCHES}, gpu-small-kernels/h200.txt, its first line"
        ),
        "graph_launch": Constant(
            1.3e-6, "seconds", "the same in a CUDA graph: gpu-small-kernels/h200_graph.txt, its first line"
        ),
        "memory": Constant(4.15e12, "bytes a second", f"STREAM triad: {_AZURE}; there copy 4.01, dot 4.48; 4.8 on paper"),
        "read_memory": Constant(4.48e12, "bytes a second", f"reads alone, STREAM dot: {_AZURE}"),
        "in_flight": Constant(
            26_600, "bytes", f"per multiprocessor, for the rate above: 16,384 give 2.76 TB/s in {_BENCHES}, gpu-stream/h200.txt"
        ),
        "link": Constant(64e9, "bytes a second", f"PCIe 5 with 16 lanes, one way, on paper; measured 52e9: {_AZURE}"),
        "special_functions": Constant(
            16, "a cycle", "per multiprocessor; NVIDIA, CUDA Programming Guide, Arithmetic Instructions"
        ),
        "bfloat16": Constant(989e12, "operations a second", "dense, on paper: NVIDIA H200 data sheet"),
        "float16": Constant(989e12, "operations a second", "dense, on paper: NVIDIA H200 data sheet"),
        "float32": Constant(494e12, "operations a second", "dense, on paper: products in tf32: NVIDIA H200 data sheet"),
    }
}
PRECISIONS = ("bfloat16", "float16", "float32")
# Dense products on tensor cores, operations a second, in 16 bits (added up in float32) and in tf32; the link to the host, bytes
# a second one way, on paper.
_AMPERE, _ADA, _BLACKWELL = (f"NVIDIA, {name} architecture whitepaper" for name in ("GA102", "Ada GPU", "RTX Blackwell GPU"))
_PEAKS = {
    "a100-40gb": (312e12, 156e12, 32e9, "NVIDIA A100 data sheet"),
    "a100-80gb": (312e12, 156e12, 32e9, "NVIDIA A100 data sheet"),
    "h100": (989e12, 494e12, 64e9, "NVIDIA H100 data sheet, SXM"),
    "h100-pcie": (756e12, 378e12, 64e9, "NVIDIA H100 data sheet, PCIe"),
    "b200": (2250e12, 1125e12, 64e9, "NVIDIA B200 data sheet"),
    "rtx-3090": (71e12, 35.6e12, 32e9, _AMPERE),
    "rtx-4090": (165.2e12, 82.6e12, 32e9, _ADA),
    "l4": (121e12, 60e12, 32e9, "NVIDIA L4 data sheet"),
    "l40s": (362e12, 183e12, 32e9, "NVIDIA L40S data sheet"),
    "rtx-5090": (209.5e12, 104.8e12, 64e9, _BLACKWELL),
}
MEMORY_SHARE = 0.865  # of a data sheet's bandwidth, as 4.15 TB/s are of the H200's 4.8


def _of_data_sheet(name: str) -> dict[str, Constant]:
    gpu, (half, tf32, link, source) = gpus.GPUS[name], _PEAKS[name]
    h200 = MODELS["nvidia-h200"]
    l2 = h200["l2_bytes"].value / gpus.GPUS["h200"].cores * gpu.cores
    return h200 | {
        "clock": Constant(gpu.clock, "cycles a second", f"boost clock: {gpu.source}"),
        "l2_bytes": Constant(l2, "bytes a cycle", "assumed: as many for each multiprocessor as on the H200"),
        "multiply_adds": Constant(half / 2 / gpu.cores / gpu.clock, "a cycle", f"16 bits, per multiprocessor: {source}"),
        "read_memory": Constant(
            h200["read_memory"].value / 4.8e12 * gpu.bandwidth, "bytes a second", "assumed: the share that the H200 reaches"
        ),
        "memory": Constant(
            MEMORY_SHARE * gpu.bandwidth, "bytes a second", f"assumed: {MEMORY_SHARE:.1%} of what {gpu.source} has"
        ),
        "link": Constant(link, "bytes a second", f"PCIe with 16 lanes, one way, on paper: {source}"),
        "bfloat16": Constant(half, "operations a second", f"dense, on paper: {source}"),
        "float16": Constant(half, "operations a second", f"dense, on paper: {source}"),
        "float32": Constant(tf32, "operations a second", f"dense, on paper, products in tf32: {source}"),
    }


MODELS |= {gpus.GPUS[name].kind: _of_data_sheet(name) for name in _PEAKS}
NAMES = {name: gpu.kind for name, gpu in gpus.GPUS.items()}  # on the command line
STEP = (*_HOPPER_STEP, "launch")  # what the model of recurrent layers takes


@functools.cache
def constants(kind: str) -> dict[str, float]:
    """The values for a kind of device, in seconds, bytes, operations and cycles."""
    return {name: constant.value for name, constant in MODELS[kind].items()}


def floor_seconds(kind: str, precision: str, moved: float, operations: float) -> float:
    """The longer of the bytes at the memory's rate and the operations at the peak."""
    return max(moved / constants(kind)["memory"], operations / constants(kind)[precision])


def seconds(kind: str, moved: float, launches: float) -> float:
    """The time of bytes at the memory's rate and of launches."""
    return moved / constants(kind)["memory"] + launches * constants(kind)["launch"]


def kind_of(name: str) -> str:
    """The kind that a command-line name, such as "h200", stands for.

    Raises:
      UserError: there is none.
    """
    if name not in NAMES:
        raise UserError(nearest("--device", name, NAMES))
    return NAMES[name]
