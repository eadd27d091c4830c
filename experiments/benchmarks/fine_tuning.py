"""When trained weights help: python -m experiments.benchmarks.fine_tuning.

LeNet-5 learns the digits, and then light digits on dark and noisy paper from a few images of each: from scratch, or from those
weights, as a whole, with smaller steps for earlier layers, or its last layers alone. Three seeds each, 300 steps, figures on
all test images. Writes experiments/results/cpu/fine-tuning.json, with an answer of zoo.predict by one of the networks.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import tempfile
from typing import Any

import numpy as np
from rich.console import Console

import zoo
from experiments.data.base import ArraySource, Dataset
from experiments.data.digits import load
from experiments.errors import run
from experiments.measuring import result
from experiments.recipes.recipe import Recipe
from experiments.training.loop import train

HERE = "experiments.benchmarks.fine_tuning:digits"
SEEDS = (0, 1, 2)
EACH = (1, 2, 5, 10, 20)  # images of a class
STEPS = 300
NOISE = 1.0  # standard deviation; paper and ink are 2 apart
# Name -> changes of the recipe; all but the first begin with trained weights.
STRATEGIES: dict[str, dict[str, Any]] = {
    "from scratch": {},
    "all layers": {},
    "all layers, decay 0.7": {"layer_decay": 0.7},
    "from fc1 on": {"freeze_until": "fc1"},
    "classifier only": {"freeze_until": "classifier"},
}
SCRATCH = next(iter(STRATEGIES))


def digits(*, noisy: bool = False, each: int = 0, seed: int = 0) -> Dataset:
    """The digits as they are, or light on dark and noisy paper.

    Args:
      each: training images of each class, chosen by `seed`; 0 for all.
    """
    whole = load()

    def part(source: ArraySource, limit: int) -> ArraySource:
        images, labels, rng = source.arrays["image"], source.arrays["label"], np.random.default_rng(seed)
        rows = [rng.permutation(np.flatnonzero(labels == label))[: limit or None] for label in range(10)]
        chosen = np.concatenate(rows)
        drawn = images[chosen]
        if noisy:
            drawn = -drawn + NOISE * rng.normal(size=drawn.shape).astype(np.float32)
        return ArraySource({"image": drawn, "label": labels[chosen]})

    return dataclasses.replace(whole, train=part(whole.train, each), test=part(whole.test, 0))


def learn(workdir: pathlib.Path, **changes: Any) -> float:
    """The accuracy on the test images at the end of a run."""
    options: dict[str, Any] = {
        "steps": STEPS,
        "learning_rate": 3e-3,
        "batch_size": 10,
        "weight_decay": 0.02,
        "evaluate_every": 1e6,
    }
    options |= {"checkpoint_every": 1e6, "workdir": str(workdir)}
    summary = train(Recipe("lenet5", HERE, **(options | changes)), Console(quiet=True))
    return summary["eval_accuracy"]


def main(arguments: list[str]) -> int:
    found: dict[str, Any] = {
        "steps": STEPS,
        "seeds": list(SEEDS),
        "each": list(EACH),
        "accuracy": {name: {} for name in STRATEGIES},
    }
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for seed in SEEDS:
            trained = root / f"first-{seed}"
            accuracy = learn(trained, data_options="noisy=False", steps=1000, batch_size=32, seed=seed)
            found.setdefault("pretrained", []).append(accuracy)
            for each in EACH:
                for name, changes in STRATEGIES.items():
                    start = {} if name == SCRATCH else {"weights": str(trained)}
                    data = f"noisy=True,each={each},seed={seed}"
                    workdir = root / f"{name}-{each}-{seed}"
                    accuracy = learn(workdir, data_options=data, seed=seed, **start, **changes)
                    found["accuracy"][name].setdefault(str(each), []).append(accuracy)
                    print(f"seed {seed}, {each} images of a class, {name}: {accuracy:.1%}", flush=True)
        found["example"] = example(root / f"from fc1 on-{EACH[-1]}-0")
    print(result.save("fine-tuning", found))
    return 0


def example(workdir: pathlib.Path) -> dict[str, Any]:
    """A test image, and what zoo.predict says of it: the first that is not certain."""
    model, test = zoo.load_model(workdir), digits(noisy=True).test.arrays
    for image in test["image"][::7]:
        grey = (255 - 127.5 * (1 + np.clip(image[..., 0], -1, 1))).round().astype(np.uint8)  # 1 is black
        answer = zoo.predict(model, grey)
        if 0.5 < answer[0].probability < 0.97:
            break
    return {"image": grey.tolist(), "answer": [[name, round(probability, 4)] for name, probability in answer]}


if __name__ == "__main__":
    sys.exit(run(main))
