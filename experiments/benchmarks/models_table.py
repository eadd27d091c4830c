"""docs/models.md from the registry and experiments/results/cpu/parity.json: python -m experiments.benchmarks.models_table."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import zoo
from experiments.benchmarks import result

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "models.md"

INTRODUCTION = """# Image models

Made by `python -m experiments.benchmarks.models_table` from `experiments/results/cpu/parity.json`; do not edit.

Parameters and multiply-adds (of convolutions and matrix products, one example of the size given) are counted from the
models. A plain name is what torchvision calls by that name, `_original` is the paper. The other columns compare with
torchvision, which gives the weights, drawn at random:

- **logits**: in evaluation at 224 x 224, float32, the largest difference over the largest logit;
- **gradient 64** and **32**: in training, one batch of four small images without dropout, float64 and float32: the largest
  difference of any gradient over the largest value of that gradient. Loss and running statistics are closer still; the result
  file has them;
- **torch 32**: how far torch's own float32 gradient is from its float64 gradient. Where a ReLU's input is next to zero,
  rounding decides whether it passes, and in a deep network such differences grow: no float32 program can agree better with
  another than with the exact result.

`-` is not compared (not in torchvision, or not run yet).

| model | input | parameters | GMACs | logits | gradient 64 | gradient 32 | torch 32 | source |
|---|---|---|---|---|---|---|---|---|
"""


def row(name: str, found: dict[str, Any]) -> str:
    info = zoo.model_info(name)
    number = lambda value: "-" if value is None else f"{value:.0e}"
    training = found.get("training", {})
    cells = (
        f"`{name}`",
        " x ".join(map(str, info.input_shape)),
        f"{found['params']:,}",
        f"{found['macs'] / 1e9:.4g}",
        number(found.get("evaluation", {}).get("logits")),
        number(training.get("float64", {}).get("gradient")),
        number(training.get("float32", {}).get("gradient")),
        number(training.get("torch_float32_from_float64")),
        info.paper,
    )
    return "| " + " | ".join(cells) + " |\n"


def render() -> str:
    """The page."""
    found = json.loads((result.RESULTS / "cpu" / "parity.json").read_text())
    versions = found["versions"]
    where = f"\nMeasured on {found['device']}, jax {versions['jax']}, torch {versions['torch']}, {found['date']}.\n"
    return INTRODUCTION + "".join(row(name, model) for name, model in found["models"].items()) + where


def main() -> None:
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(render())
    print(PAGE)


if __name__ == "__main__":
    main()
