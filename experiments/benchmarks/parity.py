"""Every convolutional model counted and compared with torchvision: python -m experiments.benchmarks.parity [PATTERN ...].

Options: --evaluation leaves out the comparison in training, which takes a few minutes for each of the large networks.

Writes experiments/results/cpu/parity.json, model by model, so that a later call with a pattern completes an earlier one.
`python -m experiments.report` makes docs/models.md from it.
"""

from __future__ import annotations

import argparse
import fnmatch
from typing import Any

import numpy as np
from flax import nnx

import zoo
from experiments.measuring import result
from experiments.peers import torch_vision

FAMILIES = ("lenet", "alexnet", "vgg", "resnet", "googlenet")
TRAINING_SIZES = {"alexnet": 64, "vgg": 32, "resnet": 65, "googlenet": 64}


def count(name: str) -> dict[str, int]:
    """Parameters and multiply-adds of the evaluation of one example."""
    options: dict[str, Any] = {"aux_logits": False} if name.startswith("googlenet") else {}
    model = nnx.eval_shape(lambda: zoo.create_model(name, **options))
    return {"params": zoo.count_params(model), "macs": zoo.count_macs(model, zoo.model_info(name).input_shape)}


def compare(name: str, training: bool) -> dict[str, object]:
    rng = np.random.default_rng(0)
    found: dict[str, object] = {
        "evaluation": {
            "size": 224,
            "batch": 1,
            "logits": torch_vision.evaluation(name, rng.normal(size=(1, 224, 224, 3)).astype(np.float32)).error,
        }
    }
    if training:
        size = TRAINING_SIZES[zoo.model_info(name).family]
        images, labels = rng.normal(size=(4, size, size, 3)).astype(np.float32), rng.integers(0, 1000, 4).astype(np.int32)
        found["training"] = {
            "size": size,
            "batch": 4,
            "float32": torch_vision.training_errors(name, images, labels, np.float32),
            "float64": torch_vision.training_errors(name, images, labels, np.float64),
        }
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("patterns", nargs="*", default=["*"])
    parser.add_argument("--evaluation", action="store_true", help="leave out the comparison in training")
    options = parser.parse_args(arguments)
    models = result.kept("parity", "models")
    for name in zoo.list_models():
        info = zoo.model_info(name)
        if info.family not in FAMILIES or not any(fnmatch.fnmatch(name, pattern) for pattern in options.patterns):
            continue
        models[name] = models.get(name, {}) | count(name)
        if info.weights:
            models[name] |= compare(name, not options.evaluation)
        print(name, models[name], flush=True)
        result.save(
            "parity",
            {
                "protocol": "random weights from torchvision loaded by zoo.load_weights; errors relative to the largest "
                "logit, or to the largest value of each gradient and statistic",
                "models": dict(sorted(models.items())),
            },
        )


if __name__ == "__main__":
    main()
