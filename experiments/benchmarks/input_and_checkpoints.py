"""How long a checkpoint keeps the step waiting, and the data: python -m experiments.benchmarks.input_and_checkpoints.

ResNet-18 at 32x32 on the digits, batch 64, with AdamW. Aims: a checkpoint blocks the step at most 10 % of the time that writing
it takes, and the step waits for data less than 5 % of its time. Writes experiments/results/DEVICE/input-and-checkpoints.json.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import pathlib
import statistics
import tempfile
import time
from typing import Any

import jax
from rich.console import Console

from experiments.measuring import result
from experiments.recipes.recipe import Recipe
from experiments.training.checkpoints import Checkpoints, named_leaves
from experiments.training.loop import train
from experiments.training.restore import build

AIMS = {"blocked_share": 0.10, "input_wait": 0.05}


def recipe(model: str, steps: int, workdir: pathlib.Path) -> Recipe:
    plain = Recipe(model, "digits", batch_size=64, steps=steps, optimizer="adamw", tracker="none", workdir=str(workdir))
    return dataclasses.replace(plain, evaluate_every=1e6, checkpoint_every=1e6)  # once, at the end


def save_rounds(chosen: Recipe, folder: pathlib.Path, rounds: int) -> dict[str, Any]:
    """Checkpoints one after the other, of a state that no step changes: seconds that `save` took, and until it was written."""
    state = jax.block_until_ready(build(chosen).stepper.state)
    blocked, written = [], []
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        for number in range(1, rounds + 2):
            begun = time.perf_counter()
            checkpoints.save(number, state, {"step": number}, loss=1.0)
            blocked.append(time.perf_counter() - begun)
            checkpoints.wait()
            written.append(time.perf_counter() - begun)
    blocked, written = blocked[1:], written[1:]  # the first makes folders and compiles the copies
    shares = [b / w for b, w in zip(blocked, written, strict=True)]
    return {
        "bytes": sum(leaf.nbytes for leaf in named_leaves(state).values()),
        "blocked_seconds": blocked,
        "written_seconds": written,
        "blocked_share": statistics.median(shares),
    }


def main(model: str = "resnet18", steps: int = 60, rounds: int = 5) -> int:
    with tempfile.TemporaryDirectory() as folder:
        chosen = recipe(model, steps, pathlib.Path(folder, "run"))
        found = save_rounds(chosen, pathlib.Path(folder, "checkpoints"), rounds)
        summary = train(chosen, Console(file=io.StringIO()))
    figures = {"model": model, "steps": steps, **found, "input_wait": summary["input_wait"], "aims": AIMS}
    print(
        f"{model}: a checkpoint of {found['bytes'] / 2**20:.0f} MiB blocks the step {found['blocked_share']:.1%} of its writing"
    )
    print(f"{model}: the step waits for data {summary['input_wait']:.2%} of its time")
    print(result.save("input-and-checkpoints", figures))
    return 0 if all(figures[name] < aim for name, aim in AIMS.items()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
