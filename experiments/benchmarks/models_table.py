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
- **gradient 64**: in training, one batch of four small images without dropout, float64: the largest difference of any
  gradient over the largest value of that gradient. Loss and running statistics are closer still; the result file has them.

`-` is not compared (not in torchvision, or not run yet).

| model | input | parameters | GMACs | logits | gradient 64 | source |
|---|---|---|---|---|---|---|
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
        info.paper,
    )
    return "| " + " | ".join(cells) + " |\n"


def render() -> str:
    """The page."""
    found = json.loads((result.RESULTS / "cpu" / "parity.json").read_text())
    versions = found["versions"]
    where = f"\nMeasured on {found['device']}, jax {versions['jax']}, torch {versions['torch']}, {found['date']}.\n"
    return INTRODUCTION + "".join(row(name, model) for name, model in found["models"].items()) + where + float32_section()


def float32_section() -> str:
    """What float32 gradients of the deep networks can be held to, from float32-gradients.json."""
    found = json.loads((result.RESULTS / "cpu" / "float32-gradients.json").read_text())
    lines = []
    for name, m in found["models"].items():
        cells = (
            f"`{name}`",
            m["draws"],
            m["zoo_above_limit"],
            m["torch_above_limit"],
            *(f"{max(m[w]):.1g}" for w in ("zoo", "torch")),
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |\n")
    return FLOAT32.format(limit=found["limit"], size=found["size"], batch=found["batch"]) + "".join(lines)


FLOAT32 = """
## Gradients in float32

In a deep network a float32 gradient is not always within {limit:g} of the float64 one, neither here nor in torch; some differ
by a tenth. The likely cause, not proved here, is rounding that moves a ReLU's input to the other side of zero. So the deep
networks are compared in float64 above, and here float32 is compared over several draws of {batch} images of {size} x {size}:
how many draws have a gradient that is further than {limit:g} from torch's float64, and the furthest.

| model | draws | zoo, beyond | torch, beyond | zoo, furthest | torch, furthest |
|---|---|---|---|---|---|
"""


def main() -> None:
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(render())
    print(PAGE)


if __name__ == "__main__":
    main()
