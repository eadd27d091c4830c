"""That the convolutional networks learn: python -m experiments.benchmarks.conv_learning [--only NAME ...].

resnet20_cifar on the digits with three seeds (aim: 98.5 % of the held-out fifth each), and AlexNet, VGG-11 with batch
normalization and GoogLeNet on 64 images with random labels until every one is learned by heart. Writes
experiments/results/cpu/conv-learning.json.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import zoo
from experiments.benchmarks import seeds
from experiments.losses import cross_entropy
from experiments.measuring import result

SEEDS = (0, 1, 2)
OVERFIT = {"alexnet": 64, "vgg11_bn": 32, "googlenet": 64}  # image size
MOST_STEPS = 300


def overfit(name: str, size: int, most_steps: int = MOST_STEPS) -> dict[str, Any]:
    """Adam on all 64 images at once until training accuracy, in evaluation mode, is 100 %."""
    begun = time.monotonic()
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(64, size, size, 3)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 10, 64), jnp.int32)
    family = zoo.model_info(name).family
    options: dict[str, Any] = {"dropout": 0.0} if family in ("alexnet", "vgg", "googlenet") else {}
    options |= {"dropout_aux": 0.0} if family == "googlenet" else {}
    params, state, apply = zoo.functional(zoo.create_model(name, num_classes=10, in_channels=3, **options))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.warmup_constant_schedule(0, 3e-4, 20)))

    def loss(params: Any, state: Any) -> tuple[jax.Array, Any]:
        outputs, state = apply(params, state, images, train=True)
        return cross_entropy(outputs, labels)[0], state

    def step(params: Any, state: Any, slots: Any) -> tuple[Any, Any, Any, jax.Array]:
        (value, state), gradient = jax.value_and_grad(loss, has_aux=True)(params, state)
        updates, slots = optimizer.update(gradient, slots)
        return optax.apply_updates(params, updates), state, slots, value

    run = jax.jit(step, donate_argnums=(0, 1, 2))
    score = jax.jit(lambda params, state: (apply(params, state, images)[0].argmax(-1) == labels).mean())
    slots, accuracy, value = optimizer.init(params), 0.0, jnp.inf
    for number in range(1, most_steps + 1):
        params, state, slots, value = run(params, state, slots)
        if number % 10 == 0:
            accuracy = float(score(params, state))
            if accuracy == 1.0:
                break
    return {"accuracy": accuracy, "steps": number, "loss": float(value), "seconds": round(time.monotonic() - begun, 1)}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    names = ["resnet20_cifar", *OVERFIT]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    options = parser.parse_args(arguments)
    found = result.kept("conv-learning", "runs")
    for name in options.only:
        found[name] = seeds.over([name], SEEDS, ["eval_accuracy"]) if name == "resnet20_cifar" else overfit(name, OVERFIT[name])
        print(name, found[name], flush=True)
        print(result.save("conv-learning", {"runs": found}))


if __name__ == "__main__":
    main()
