"""Fine-tune a zoo model in a plain JAX loop: python -m experiments.examples.finetune_plain_jax [--weights FILE] [--steps N].

No trainer, no NNX in the loop: parameters and state are nested dicts of arrays, `apply` a pure function. Only the classifier
is trained in the first half, everything after that.
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import optax

import kernels
import zoo
from experiments import data


def finetune(
    model_name: str = "resnet20_cifar", weights: str | None = None, steps: int = 60, batch_size: int = 64
) -> list[float]:
    """Losses of the steps."""
    digits = data.load("digits")
    model = zoo.create_model(model_name, num_classes=10, in_channels=1, weights=weights)
    params, state, apply = zoo.functional(model)

    trunk_frozen = jax.tree.map_with_path(lambda path, _: path[0].key == "fc", params)
    optimizer = optax.adam(2e-3)

    @jax.jit
    def step(params, state, slots, batch, train_trunk):
        def loss(params):
            logits, new_state = apply(params, state, batch["image"], train=True)
            return kernels.softmax_cross_entropy(logits, batch["label"]).mean(), new_state

        (value, state), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        gradient = jax.tree.map(lambda g, head: jnp.where(head | train_trunk, g, 0), gradient, trunk_frozen)
        updates, slots = optimizer.update(gradient, slots)
        return optax.apply_updates(params, updates), state, slots, value

    slots, batches, losses = optimizer.init(params), digits.training_batches(batch_size, seed=0), []
    for number in range(steps):
        params, state, slots, value = step(params, state, slots, batches[number], number >= steps // 2)
        losses.append(float(value))
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", help="anything zoo.load_weights takes; other numbers of classes and channels are adapted")
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    losses = finetune(weights=options.weights, steps=options.steps)
    print(f"loss {losses[0]:.3f} at first, {losses[-1]:.3f} in the end")


if __name__ == "__main__":
    main()
