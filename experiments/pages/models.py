"""docs/models.md: every model of the zoo, counted and compared with torchvision's."""

from __future__ import annotations

import re
from typing import Any

import zoo
from experiments.measuring.tables import markdown

INTRODUCTION = """# Models

Made by `python -m experiments.report` from the registry and `experiments/results/cpu/parity.json`; do not edit.

`zoo.create_model(NAME)` builds any of these; `python -m zoo info NAME` lists its layers. A plain name is what torchvision calls
by that name, `_original` is the paper's version. Parameters include the scale and bias of batch norm. Multiply-adds are those
of convolutions and matrix products for one example of the input given: height×width×channels, time×features, or the length of a
text or latent vector.

The last two columns compare with torchvision, whose randomly initialized weights are loaded into both:

- **logits**: evaluation at 224×224, float32; the largest difference over the largest logit.
- **gradient, float64**: training on one batch of four small images, without dropout; the largest difference of any gradient
  over the largest value of that gradient. Loss and running statistics agree more closely still; the result file has them.

`-` means not in torchvision. The tests compare those models with torch too. Saving, loading and sharing a model:
[training](training.md#a-run-is-a-model).

"""
FLOAT32 = """
## Gradients in float32

In a deep network a float32 gradient is not always within {limit:g} of the float64 gradient, here or in torch; some differ by a
tenth. The likely cause, not proved here, is rounding that moves the input of a ReLU across zero. The table above therefore
compares in float64. Below, float32 is compared over several random batches of {batch} images of {size}×{size}: in how many of
them some gradient is further than {limit:g} from torch's float64 gradient, and how far at most.

"""


def citation(paper: str) -> str:
    """Author and year of a paper as the registry names it: "LeCun, Bottou, Bengio, Haffner 1998, ..." is LeCun et al. 1998."""
    found = re.match(r"(.*?),? (\d{4})\b", paper)
    if found is None:
        return paper
    first, *others = found[1].split(", ")
    last = f" and {others[0]}" if len(others) == 1 else " et al." if others else ""
    return f"{first}{last} {found[2]}"


def row(name: str, found: dict[str, Any]) -> list[str]:
    """A model of the registry beside what was compared."""
    info = zoo.model_info(name)
    number = lambda value: "-" if value is None else f"{value:.0e}"
    return [
        f"`{name}`",
        "×".join(map(str, info.input_shape)),
        f"{info.params:,}",
        f"{info.macs / 1e9:.4g}",
        number(found.get("evaluation", {}).get("logits")),
        number(found.get("training", {}).get("float64", {}).get("gradient")),
        citation(info.paper),
    ]


def page(parity: dict[str, Any], gradients: dict[str, Any]) -> str:
    """docs/models.md, from the registry and the result files parity and float32-gradients."""
    versions = parity["versions"]
    where = f"\nCompared on {parity['device']}, jax {versions['jax']}, torch {versions['torch']}, {parity['date']}.\n"
    header = ["model", "input", ">parameters", ">GMACs", ">logits", ">gradient, float64", "paper"]
    table = markdown(header, [row(name, parity["models"].get(name, {})) for name in zoo.list_models()])
    return INTRODUCTION + table + where + float32(gradients)


def float32(found: dict[str, Any]) -> str:
    """How far float32 gradients of the deep networks are from float64."""
    rows = [
        [f"`{name}`", *(str(m[field]) for field in ("draws", "zoo_above_limit", "torch_above_limit"))]
        + [f"{max(m[who]):.1g}" for who in ("zoo", "torch")]
        for name, m in found["models"].items()
    ]
    header = ["model", ">batches", ">zoo, beyond", ">torch, beyond", ">zoo, furthest", ">torch, furthest"]
    return FLOAT32.format(limit=found["limit"], size=found["size"], batch=found["batch"]) + markdown(header, rows)
