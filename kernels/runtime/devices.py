"""The device that programs are compiled for, as JAX knows it: its name, cores, memories and limits.

A name is never looked up in a table: a slice of a GPU (MIG) has the GPU's name but a fraction of its multiprocessors, and a
kernel with a barrier across its grid that was planned for all of them would never end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
from collections.abc import Iterator
from typing import Any

import jax

from kernels.runtime import gpus


@dataclasses.dataclass(frozen=True)
class Device:
    """What a program is compiled for. A core is a streaming multiprocessor, as JAX has it; sizes are in bytes.

    Attributes:
      kind: its name as a file name; that of its file in kernels/tuned/.
      platform: "cpu", "cuda", "rocm", "tpu", ...
      shared_memory: that one block may use.
      core_shared_memory, core_threads, core_blocks, core_registers: what the blocks on one core have together.
    """

    kind: str
    platform: str
    compute_capability: tuple[int, int] = (0, 0)
    cores: int = 0
    shared_memory: int = 0
    l2_cache: int = 0
    core_shared_memory: int = 0
    core_threads: int = 0
    core_blocks: int = 0
    core_registers: int = 0


def of_gpu(gpu: gpus.Gpu) -> Device:
    """A GPU that need not be there, as `device` would describe it."""
    limits = gpu.limits
    return Device(
        kind=gpu.kind,
        platform="cuda",
        compute_capability=gpu.compute_capability,
        cores=gpu.cores,
        shared_memory=limits.block_shared_memory,
        l2_cache=gpu.l2_cache,
        core_shared_memory=limits.shared_memory,
        core_threads=limits.threads,
        core_blocks=limits.blocks,
        core_registers=limits.registers,
    )


BASELINE = (8, 0)  # the least compute capability that the hand-written kernels are for
H200 = of_gpu(gpus.GPUS["h200"])
CPU = Device("cpu", "cpu")
# Known to jax.jit: a function traced for one device is traced anew for another, never reused by mistake.
_target = jax.make_user_context(None)


@functools.cache
def describe(device: Any) -> Device:
    """A device of JAX's. What JAX does not tell of an NVIDIA GPU is what its compute capability has at least."""
    if device.platform != "gpu":
        return Device(gpus.kind_of(device.device_kind), device.platform)
    kind = gpus.kind_of(device.device_kind)
    facts = target_config(device)
    vendor = str(getattr(device, "device_vendor", None) or facts.get("device_vendor") or "")
    capability = re.fullmatch(r"(\d+)\.(\d+)\w*", str(getattr(device, "compute_capability", "")))
    if capability is None or (vendor and "nvidia" not in vendor.lower()):  # AMD's is a name, such as gfx90a
        return Device(kind, "rocm")
    major, minor = int(capability[1]), int(capability[2])
    limits = gpus.limits((major, minor))

    def told(attribute: str | None, *names: str, default: int = 0) -> int:
        values = [getattr(device, attribute, None) if attribute else None, *(facts.get(name) for name in names)]
        return int(next((value for value in values if value), default))

    return Device(
        kind=kind,
        platform="cuda",
        compute_capability=(major, minor),
        cores=told("core_count", "core_count"),
        shared_memory=told(
            "shared_memory_per_block_optin", "shared_memory_per_block_optin", default=limits.block_shared_memory
        ),
        l2_cache=told(None, "l2_cache_size", "data_caches.2", default=limits.l2_cache),
        core_shared_memory=told(None, "shared_memory_per_core", default=limits.shared_memory),
        core_threads=told(None, "threads_per_core_limit", default=limits.threads),
        core_blocks=told(None, "max_blocks_per_multiprocessor", default=limits.blocks),
        core_registers=told(None, "registers_per_core_limit", default=limits.registers),
    )


def target_config(device: Any) -> dict[str, int | str]:
    """What XLA knows of a GPU, field by field; empty where this JAX does not say.

    It stands in a text that only private functions give, under names that change: "l2_cache_size" is in newer versions
    "data_caches", here "data_caches.2" for level 2.
    """
    try:
        from jaxlib import xla_client

        text = xla_client.get_topology_for_devices([device]).target_config
    except (ImportError, AttributeError, TypeError, ValueError, RuntimeError):  # a private function: any of them may come
        return {}
    found: dict[str, int | str] = {}
    for name, number, words in re.findall(r'^\s*(\w+): (?:(\d+)$|"(.*)")', str(text), re.M):
        found.setdefault(name, int(number) if number else words)
    for level, size in re.findall(r"data_caches\s*\{\s*level: (\d+)\s+size_bytes: (\d+)", str(text)):
        found[f"data_caches.{level}"] = int(size)
    return found


def device() -> Device:
    """The device that programs are being compiled for: that of `target`, else of jax.default_device, else the first here."""
    if _target.value is not None:
        return _target.value
    chosen = jax.config.jax_default_device  # type: ignore[attr-defined]
    if chosen is None:
        return describe(jax.local_devices()[0])
    return describe(jax.local_devices(backend=chosen)[0] if isinstance(chosen, str) else chosen)


@contextlib.contextmanager
def target(kind: str | Device) -> Iterator[Device]:
    """Choose implementations as on a device of this kind, present or not, to compile or export for it.

    Args:
      kind: "cpu", one of `kernels.runtime.gpus.GPUS` ("h200", "a100-80gb", "rtx-4090", ...), or a description of a device.

    Raises:
      ValueError: no such kind is known; the message lists those that are.
    """
    described = kind if isinstance(kind, Device) else CPU if kind == "cpu" else of_gpu(gpus.find(kind))
    with _target(described):
        yield described
