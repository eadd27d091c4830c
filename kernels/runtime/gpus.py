"""GPUs by name, with the figures of their data sheets: for compiling, planning and modelling without such a GPU.

What a program runs on is never looked up here: kernels/runtime/devices.py asks JAX. The one exception is `LIMITS`, which
JAX may not report and which depend on the compute capability alone.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a streaming multiprocessor of a compute capability holds.

    Attributes:
      threads, blocks, registers: resident at the same time.
      shared_memory: bytes, of all its blocks.
      block_shared_memory: bytes that one block may use.
      l2_cache: bytes; that of the smallest GPU of this capability, since a plan for more than there is would be slow.
    """

    threads: int
    blocks: int
    registers: int
    shared_memory: int
    block_shared_memory: int
    l2_cache: int


KIB, MIB = 2**10, 2**20
RESERVED_SHARED_MEMORY = 1024  # bytes that the system takes of each block's share, from compute capability 8.0 on
# NVIDIA, CUDA Programming Guide, appendix on compute capabilities, "Technical Specifications". L2: the smallest GPU of each
# capability in NVIDIA's data sheets: T4, A30, A2, Orin, RTX 4060, H100, B200, RTX 5060.
LIMITS = {
    (7, 5): Limits(1024, 16, 65_536, 64 * KIB, 64 * KIB, 4 * MIB),
    (8, 0): Limits(2048, 32, 65_536, 164 * KIB, 163 * KIB, 24 * MIB),
    (8, 6): Limits(1536, 16, 65_536, 100 * KIB, 99 * KIB, 2 * MIB),
    (8, 7): Limits(1536, 16, 65_536, 164 * KIB, 163 * KIB, 4 * MIB),
    (8, 9): Limits(1536, 24, 65_536, 100 * KIB, 99 * KIB, 24 * MIB),
    (9, 0): Limits(2048, 32, 65_536, 228 * KIB, 227 * KIB, 50 * MIB),
    (10, 0): Limits(2048, 32, 65_536, 228 * KIB, 227 * KIB, 126 * MIB),
    (12, 0): Limits(1536, 24, 65_536, 100 * KIB, 99 * KIB, 24 * MIB),
}


def limits(compute_capability: tuple[int, int]) -> Limits:
    """Those of the capability; of one that is not listed, the least of each over the listed ones of its major number or all."""
    if compute_capability in LIMITS:
        return LIMITS[compute_capability]
    same = [found for (major, _), found in LIMITS.items() if major == compute_capability[0]] or list(LIMITS.values())
    return Limits(*(min(values) for values in zip(*(dataclasses.astuple(found) for found in same), strict=True)))


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A GPU as its data sheet has it.

    Attributes:
      jax_name: `device_kind` of JAX's device, which is the driver's name for the GPU.
      cores: streaming multiprocessors.
      l2_cache, memory: bytes.
      bandwidth: of device memory, bytes a second; the theoretical one.
      clock: boost clock, hertz.
      source: where cores, caches, bandwidth and clock were read.
    """

    jax_name: str
    compute_capability: tuple[int, int]
    cores: int
    l2_cache: int
    memory: int
    bandwidth: float
    clock: float
    source: str

    @property
    def kind(self) -> str:
        """The name of its files: kernels/tuned/KIND.json, experiments/results/KIND/."""
        return kind_of(self.jax_name)

    @property
    def limits(self) -> Limits:
        return limits(self.compute_capability)


def kind_of(jax_name: str) -> str:
    """A device's name in JAX as a file name: "NVIDIA H100 80GB HBM3" is nvidia-h100-80gb-hbm3."""
    return "-".join("".join(c if c.isalnum() or c in ".-" else " " for c in jax_name.lower()).split())


_XLA = "OpenXLA, xla/backends/gpu/target_config/specs, read off such a card"
_AMPERE = "NVIDIA, GA102 architecture whitepaper"
_ADA = "NVIDIA, Ada GPU architecture whitepaper"
# The L2 of a real H200 falls to half its rate at 58 MB (te42kyfo/gpu-benches, gpu-l2-cache/h200.txt; an H100 PCIe's at 40), so
# it has probably 60 MB, as an H100 NVL reports (caps-tum/mt4g, results/H100NVL.json). 50 stay: a plan for too much is slow.
_L4 = "NVIDIA, L4 product brief; L2 that of AD104 in the Ada whitepaper"
_L40S = "NVIDIA, L40S product brief; L2 that of AD102 in the Ada whitepaper"
_BLACKWELL = "NVIDIA, RTX Blackwell GPU architecture whitepaper"
GPUS = {
    "a100-40gb": Gpu("NVIDIA A100-SXM4-40GB", (8, 0), 108, 40 * MIB, 42_331_013_120, 1555.2e9, 1.41e9, f"{_XLA} (a100_sxm_40)"),
    "a100-80gb": Gpu("NVIDIA A100-SXM4-80GB", (8, 0), 108, 40 * MIB, 85_094_825_984, 2039e9, 1.41e9, f"{_XLA} (a100_sxm_80)"),
    "h100": Gpu("NVIDIA H100 80GB HBM3", (9, 0), 132, 50 * MIB, 84_942_979_072, 3352.32e9, 1.98e9, f"{_XLA} (h100_sxm)"),
    "h100-pcie": Gpu("NVIDIA H100 PCIe", (9, 0), 114, 50 * MIB, 84_942_979_072, 2039.04e9, 1.755e9, f"{_XLA} (h100_pcie)"),
    "h200": Gpu("NVIDIA H200", (9, 0), 132, 50 * MIB, 151_397_597_184, 4800e9, 1.98e9, f"{_XLA} (h200)"),
    "b200": Gpu("NVIDIA B200", (10, 0), 148, 132_644_864, 191_514_411_008, 7672.32e9, 1.965e9, f"{_XLA} (b200)"),
    "rtx-3090": Gpu("NVIDIA GeForce RTX 3090", (8, 6), 82, 6 * MIB, 24 * 2**30, 936e9, 1.695e9, _AMPERE),
    "rtx-4090": Gpu("NVIDIA GeForce RTX 4090", (8, 9), 128, 72 * MIB, 24 * 2**30, 1008e9, 2.52e9, _ADA),
    "l4": Gpu("NVIDIA L4", (8, 9), 58, 48 * MIB, 24 * 2**30, 300e9, 2.04e9, _L4),
    "l40s": Gpu("NVIDIA L40S", (8, 9), 142, 96 * MIB, 48 * 2**30, 864e9, 2.52e9, _L40S),
    "rtx-5090": Gpu("NVIDIA GeForce RTX 5090", (12, 0), 170, 96 * MIB, 32 * 2**30, 1792e9, 2.407e9, _BLACKWELL),
}  # fmt: skip


def is_known(name: str) -> bool:
    """Whether `find` finds a GPU of that name."""
    return any(kind_of(name) in _names(short, gpu) for short, gpu in GPUS.items())


def _names(short: str, gpu: Gpu) -> tuple[str, ...]:
    return short, f"nvidia-{short}", gpu.kind


def find(name: str) -> Gpu:
    """The GPU of that name: "h200", "nvidia-h200", or what the driver calls it.

    Raises:
      ValueError: there is none; the message lists the names.
    """
    for short, gpu in GPUS.items():
        if kind_of(name) in _names(short, gpu):
            return gpu
    raise ValueError(f"kind: {name!r} is not known; known kinds are cpu, {', '.join(GPUS)}")
