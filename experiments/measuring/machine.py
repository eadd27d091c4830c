"""The machine that measures: its description in a result file, and the rates it achieves."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import os
import pathlib
import platform
import re
import subprocess
from typing import Any

import jax
import jax.numpy as jnp

from experiments.measuring import clock
from experiments.measuring.sources import ROOT
from kernels.runtime import dispatch

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch")
COMPILERS = ("jax", "jaxlib", "triton", "jax-triton")
ON_GPU = ("triton", "jax-triton", "jax-cuda13-plugin")
CALLS = 24  # of which the fastest is a ceiling
NVIDIA_SMI = ("sm", "mem", "max.sm", "max.mem")


def processor() -> str:
    """The processor's name as Linux gives it."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def versions(*packages: str) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def surroundings() -> dict[str, Any]:
    """Device, versions, date and commit of what is measured here."""
    on_gpu = dispatch.device().platform != "cpu"
    return {
        "device": jax.devices()[0].device_kind if on_gpu else f"{os.cpu_count()} cores of {processor()}",
        "versions": versions(*PACKAGES) | {"python": platform.python_version()} | versions(*(ON_GPU if on_gpu else ())),
        "date": today(),
        "commit": commit(),
    }


def compiled_for(kind: str, *packages: str) -> dict[str, Any]:
    """The same for what is compiled for a kind of device that need not be present; `packages` in addition to the compilers."""
    return {"device": kind, "versions": versions(*COMPILERS, *packages), "date": today(), "commit": commit()}


def today() -> str:
    return datetime.date.today().isoformat()


def _output(*command: str) -> str | None:
    """What a command prints; None where it is not there or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def commit() -> str:
    """The commit of the tree, with a plus where Python files have changes; "unknown" where there is no git."""
    name = _output("git", "rev-parse", "--short", "HEAD")
    if name is None:
        return "unknown"
    return name if _output("git", "diff", "--quiet", "HEAD", "--", "*.py") is not None else f"{name}+"


def clocks() -> dict[str, float] | None:
    """Clock rates in MHz right now: of a GPU as nvidia-smi says, of a CPU the mean over its cores; None if nothing tells."""
    if dispatch.device().platform == "cuda":
        query = ",".join(f"clocks.{name}" for name in NVIDIA_SMI)
        gpu = gpu_in_use(_output("nvidia-smi", "--list-gpus") or "")
        text = gpu and _output("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits", f"--id={gpu}")
        values = re.findall(r"\d+", text or "")
        if len(values) != len(NVIDIA_SMI):
            return None
        return {f"{name.replace('.', '_')}_mhz": float(value) for name, value in zip(NVIDIA_SMI, values, strict=True)}
    info = pathlib.Path("/proc/cpuinfo")
    rates = [float(rate) for rate in re.findall(r"^cpu MHz\s*: ([\d.]+)", info.read_text(), re.M)] if info.exists() else []
    return {"cpu_mhz": round(sum(rates) / len(rates), 1)} if rates else None


def gpu_in_use(listing: str) -> str | None:
    """The UUID of the GPU that JAX's first device here is (or, of a MIG instance, belongs to); None if that is not certain.

    `listing` is what `nvidia-smi --list-gpus` prints: every GPU that the container shows, whatever CUDA_VISIBLE_DEVICES says.
    """
    lines = [line.strip() for line in listing.splitlines()]
    names: dict[str, str] = {}  # of the GPUs, by UUID, in the order of nvidia-smi's numbers
    owner: dict[str, str] = {}  # UUID of a GPU or MIG instance -> UUID of the GPU
    for line in lines:
        if (found := re.fullmatch(r"GPU \d+: (.+) \(UUID: (GPU-[^)]+)\)", line)) is not None:
            names[found[2]] = found[1]
            owner[found[2]] = found[2]
        elif names and (found := re.search(r"\(UUID: (MIG-[^)]+)\)", line)) is not None:
            owner[found[1]] = list(names)[-1]
    first = jax.local_devices()[0]
    number = getattr(first, "local_hardware_id", None) or 0  # among those that CUDA shows this process
    wanted = str(number)
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        entries = [entry.strip() for entry in visible.split(",")]
        if number >= len(entries):
            return None
        wanted = entries[number]
    if wanted.isdecimal():
        candidates = set(list(names)[int(wanted) : int(wanted) + 1])
    else:  # a UUID, or as much of its beginning as makes it unique, or MIG-<UUID of the GPU>/instance/instance
        wanted = wanted.partition("/")[0].removeprefix("MIG-") if wanted.startswith("MIG-GPU-") else wanted
        candidates = {gpu for uuid, gpu in owner.items() if wanted and uuid.startswith(wanted)}
    if len(candidates) != 1:
        return None
    (gpu,) = candidates
    # CUDA numbers the fastest GPU first and nvidia-smi goes by the bus: where cards differ, a number may mean another one.
    return gpu if first.device_kind.startswith(names[gpu]) else None


@functools.cache
def bytes_per_second() -> float:
    """What this device achieves on an array of 1 GiB (GPU) or 128 MiB (CPU): reading and writing, or reading alone.

    The best of many calls, since others may be at work on the machine: a ceiling that it exceeds would be none.
    """
    x = jnp.ones(2**28 if dispatch.device().platform == "cuda" else 2**25, jnp.float32)
    add, total = jax.jit(lambda x: x + 1), jax.jit(jnp.sum)
    both, alone = (clock.best_seconds(call, CALLS) for call in (lambda: add(x), lambda: total(x)))
    return max(2 * x.nbytes / both, x.nbytes / alone)


@functools.cache
def flops_per_second(precision: str) -> float:
    """What this device achieves in a square matrix product, 8192 (GPU) or 1024 (CPU) wide; float32 at the default precision."""
    width = 8192 if dispatch.device().platform == "cuda" else 1024
    w = jnp.ones((width, width), precision)
    product = jax.jit(lambda w: w @ w)
    return 2 * width**3 / clock.best_seconds(lambda: product(w), CALLS)


def floor_seconds(precision: str, moved: float | None, operations: float | None) -> float | None:
    """The longer of the times of the bytes and of the operations, where known, at the rates that this device achieves."""
    limits = ceilings(precision)
    rates = ((moved, limits["bytes_per_second"]), (operations, limits["flops_per_second"]))
    return max((work / rate for work, rate in rates if work is not None), default=None)


def ceilings(precision: str) -> dict[str, float]:
    return {"bytes_per_second": bytes_per_second(), "flops_per_second": flops_per_second(precision)}
