"""Runs of a recipe with several seeds, each a process of its own, as a person would start it."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import Any


def run(flags: list[str], seed: int, look: Callable[[pathlib.Path], None] = lambda workdir: None) -> dict[str, Any]:
    """One run of experiments.train: its summary, with the seconds of the whole process; `look` sees its folder."""
    with tempfile.TemporaryDirectory() as folder:
        workdir = pathlib.Path(folder) / "run"
        begun = time.perf_counter()
        command = [sys.executable, "-m", "experiments.train", *flags, "--seed", str(seed), "--workdir", str(workdir)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = round(time.perf_counter() - begun, 1)
        look(workdir)
        return json.loads((workdir / "summary.json").read_text()) | {"process_seconds": seconds}


def over(
    flags: list[str],
    chosen: Iterable[int],
    figures: Iterable[str],
    look: Callable[[int, pathlib.Path], None] = lambda seed, workdir: None,
) -> dict[str, Any]:
    """The figures of a run for each seed, and the smallest, median and largest of the first figure."""
    names, runs = list(figures), []
    for seed in chosen:
        summary = run(flags, seed, lambda workdir, seed=seed: look(seed, workdir))  # type: ignore[misc]
        runs.append({"seed": seed} | {key: summary[key] for key in (*names, "steps", "seconds", "process_seconds")})
        print(" ".join(flags), runs[-1], flush=True)
    values = sorted(r[names[0]] for r in runs)
    return {
        "command": f"python -m experiments.train {' '.join(flags)}",
        "parameters": summary["parameters"],
        "figure": names[0],
        "lowest": values[0],
        "median": values[len(values) // 2],
        "highest": values[-1],
        "runs": runs,
    }
