"""How every benchmark times and what every result file says of where and when it was obtained."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np

RESULTS = pathlib.Path(__file__).parents[1] / "results"


def processor() -> str:
    """The processor's name as Linux gives it."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def conditions() -> dict[str, Any]:
    """Device, versions and date."""
    packages = {}
    for name in ("jax", "jaxlib", "flax", "optax", "numpy", "torch"):
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "device": f"{os.cpu_count()} cores of {processor()}",
        "versions": packages | {"python": platform.python_version()},
        "date": datetime.date.today().isoformat(),
    }


def write(name: str, result: dict[str, Any], *, device: str = "cpu", measured: bool = True) -> pathlib.Path:
    """Write experiments/results/<device>/<name>.json. What was compiled for a device says so, not where it was compiled."""
    path = RESULTS / device / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    where = conditions() | ({} if measured else {"device": device})
    path.write_text(json.dumps({"measured": measured} | where | result, indent=2) + "\n")
    return path


def interleaved(contenders: dict[str, Callable[[], Any]], rounds: int = 15, warmup: int = 2) -> dict[str, dict[str, float]]:
    """Seconds per call of each contender, called in turn, A B A B ..., so that a drifting machine is the same for all.

    Each must return only when its work is done.

    Returns:
      Median, 20th and 80th percentile for each.
    """
    for call in contenders.values():
        for _ in range(warmup):
            call()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            begun = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - begun)
    quantiles = {name: np.percentile(values, (50, 20, 80)) for name, values in times.items()}
    return {name: dict(zip(("median", "p20", "p80"), map(float, q), strict=True)) for name, q in quantiles.items()}
