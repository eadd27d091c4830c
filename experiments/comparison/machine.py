"""The machine that a comparison runs on, and the sources it runs: what a result file says of them."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import re
import subprocess
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import kernels
from experiments.benchmarks.result import conditions

ROOT = pathlib.Path(__file__).parents[2]
SOURCES = ("kernels", "zoo", "experiments/comparison")
ON_GPU = ("triton", "jax-triton", "jax-cuda13-plugin")
NVIDIA_SMI = ("sm", "mem", "max.sm", "max.mem")


def surroundings() -> dict[str, Any]:
    """Device, versions and date, as in every result file, and the commit; of a GPU its kind and the versions it depends on."""
    found = conditions() | {"commit": commit()}
    if kernels.device().platform == "cpu":
        return found
    for name in ON_GPU:
        try:
            found["versions"][name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | {"device": jax.devices()[0].device_kind}


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


def python_digest(*folders: str) -> Any:
    """Of the names and contents of the Python files below some folders of the tree."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest


@functools.cache
def source_digest() -> str:
    """Of everything that a case's time depends on: the Python files of SOURCES, and what kernels/tuned/ chooses.

    The times that stand in kernels/tuned/ do not count: tuning again with the same outcome changes nothing.
    """
    digest = python_digest(*SOURCES)
    for path in sorted((ROOT / "kernels" / "tuned").glob("*.json")):
        chosen = {
            operator: {key: [entry.get("implementation"), entry.get("config")] for key, entry in entries.items()}
            for operator, entries in json.loads(path.read_text())["operators"].items()
        }
        digest.update(path.name.encode() + json.dumps(chosen, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def clocks() -> dict[str, float] | None:
    """Clock rates in MHz right now: of a GPU as nvidia-smi says, of a CPU the mean over its cores; None if nothing tells."""
    if kernels.device().platform == "cuda":
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


def _best_seconds(call: Callable[[], Any]) -> float:
    call().block_until_ready()
    times = []
    for _ in range(8):
        begun = time.perf_counter()
        call().block_until_ready()
        times.append(time.perf_counter() - begun)
    return min(times)


@functools.cache
def bytes_per_second() -> float:
    """What this device reaches reading and writing an array of 1 GiB (GPU) or 128 MiB (CPU)."""
    x = jnp.ones(2**28 if kernels.device().platform == "cuda" else 2**25, jnp.float32)
    add = jax.jit(lambda x: x + 1)
    return 2 * x.nbytes / _best_seconds(lambda: add(x))


@functools.cache
def flops_per_second(precision: str) -> float:
    """What this device reaches in a square matrix product, 8192 (GPU) or 1024 (CPU) wide; float32 as JAX does it by default."""
    width = 8192 if kernels.device().platform == "cuda" else 1024
    w = jnp.ones((width, width), precision)
    product = jax.jit(lambda w: w @ w)
    return 2 * width**3 / _best_seconds(lambda: product(w))


def ceilings(precision: str) -> dict[str, float]:
    return {"bytes_per_second": bytes_per_second(), "flops_per_second": flops_per_second(precision)}
