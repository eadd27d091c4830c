"""The registry as a table, and docs/models.md: each model counted and compared with torchvision's."""

from __future__ import annotations

import re
from typing import Any

import zoo
from experiments.measuring.tables import Table, markdown

INTRODUCTION = """# Image models

Made by `python -m experiments.report` from `experiments/results/cpu/parity.json`; do not edit.

Parameters and multiply-adds (of convolutions and matrix products, one example of the size given) are counted from the
models. A plain name is what torchvision calls by that name, `_original` is the paper. The other columns compare with
torchvision, which gives the weights, drawn at random:

- **logits**: in evaluation at 224 x 224, float32, the largest difference over the largest logit;
- **gradient 64**: in training, one batch of four small images without dropout, float64: the largest difference of any
  gradient over the largest value of that gradient. Loss and running statistics are closer still; the result file has them.

`-` is not compared (not in torchvision, or not run yet). How a model is saved, loaded and put on a hub:
[training](training.md#a-run-is-a-model).

"""
FLOAT32 = """
## Gradients in float32

In a deep network a float32 gradient is not always within {limit:g} of the float64 one, neither here nor in torch; some differ
by a tenth. The likely cause, not proved here, is rounding that moves a ReLU's input to the other side of zero. So the deep
networks are compared in float64 above, and here float32 is compared over several draws of {batch} images of {size} x {size}:
how many draws have a gradient that is further than {limit:g} from torch's float64, and the furthest.

"""


def registry() -> Table:
    """Header and rows: every model of the zoo."""
    rows = []
    for info in map(zoo.model_info, zoo.list_models()):
        shape = "×".join(map(str, info.input_shape))
        rows.append([f"`{info.name}`", f"{info.params:,}", f"{info.macs / 1e9:.4g}", shape, citation(info.paper)])
    return ["name", ">parameters", ">GMACs", "input", "paper"], rows


def citation(paper: str) -> str:
    """Author and year of a paper as the registry names it: "LeCun, Bottou, Bengio, Haffner 1998, ..." is LeCun et al. 1998."""
    found = re.match(r"(.*?),? (\d{4})\b", paper)
    if found is None:
        return paper
    first, *others = found[1].split(", ")
    last = f" and {others[0]}" if len(others) == 1 else " et al." if others else ""
    return f"{first}{last} {found[2]}"


def row(name: str, found: dict[str, Any]) -> list[str]:
    info = zoo.model_info(name)
    number = lambda value: "-" if value is None else f"{value:.0e}"
    return [
        f"`{name}`",
        " x ".join(map(str, info.input_shape)),
        f"{found['params']:,}",
        f"{found['macs'] / 1e9:.4g}",
        number(found.get("evaluation", {}).get("logits")),
        number(found.get("training", {}).get("float64", {}).get("gradient")),
        info.paper,
    ]


def page(parity: dict[str, Any], gradients: dict[str, Any]) -> str:
    """docs/models.md, from the result files parity and float32-gradients."""
    versions = parity["versions"]
    where = f"\nMeasured on {parity['device']}, jax {versions['jax']}, torch {versions['torch']}, {parity['date']}.\n"
    header = ["model", "input", ">parameters", ">GMACs", ">logits", ">gradient 64", "source"]
    table = markdown(header, [row(name, model) for name, model in parity["models"].items()])
    return INTRODUCTION + table + where + float32(gradients)


def float32(found: dict[str, Any]) -> str:
    """What float32 gradients of the deep networks can be held to."""
    rows = [
        [f"`{name}`", *(str(m[field]) for field in ("draws", "zoo_above_limit", "torch_above_limit"))]
        + [f"{max(m[who]):.1g}" for who in ("zoo", "torch")]
        for name, m in found["models"].items()
    ]
    header = ["model", ">draws", ">zoo, beyond", ">torch, beyond", ">zoo, furthest", ">torch, furthest"]
    return FLOAT32.format(limit=found["limit"], size=found["size"], batch=found["batch"]) + markdown(header, rows)
