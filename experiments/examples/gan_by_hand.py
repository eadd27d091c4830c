"""The loop of the original GAN with nothing but the zoo and optax: python -m experiments.examples.gan_by_hand [--steps N].

docs/gan.md explains it. `experiments.train gan_mlp` does the same and more: one compiled step for both networks, other losses,
moving averages, checkpoints.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import zoo
from experiments import data

softplus = jax.nn.softplus


def train(
    model: zoo.Gan, batches: Iterable[Any], latents: Iterable[Any], d_steps: int = 1, rate: float = 2e-4
) -> tuple[Any, Any, list[tuple[float, float]]]:
    """Both networks' parameters, and both losses at each step of the generator. `batches` are images, -1 to 1."""
    g, _, generate = zoo.functional(model.generator)
    d, _, score = zoo.functional(model.discriminator)
    adam = optax.adam(rate, b1=0.5)
    g_state, d_state, losses, latents = adam.init(g), adam.init(d), [], iter(latents)

    def d_loss(d, g, real, z):  # the discriminator should call real images real, generated ones not
        fake, _ = generate(g, {}, z)
        return softplus(-score(d, {}, real)[0]).mean() + softplus(score(d, {}, fake)[0]).mean()

    def g_loss(g, d, z):  # the generator wants its images called real
        return softplus(-score(d, {}, generate(g, {}, z)[0])[0]).mean()

    @jax.jit
    def d_step(d, state, g, real, z):
        loss, gradient = jax.value_and_grad(d_loss)(d, g, real, z)  # with respect to d alone
        updates, state = adam.update(gradient, state)
        return optax.apply_updates(d, updates), state, loss

    @jax.jit
    def g_step(g, state, d, z):
        loss, gradient = jax.value_and_grad(g_loss)(g, d, z)
        updates, state = adam.update(gradient, state)
        return optax.apply_updates(g, updates), state, loss

    for number, real in enumerate(batches):
        d, d_state, d_value = d_step(d, d_state, g, real, next(latents))
        if number % d_steps == d_steps - 1:
            g, g_state, g_value = g_step(g, g_state, d, next(latents))
            losses.append((float(d_value), float(g_value)))
    return g, d, losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--d-steps", type=int, default=1, help="steps of the discriminator for each one of the generator")
    given = parser.parse_args()
    digits = data.load("digits", size=28)
    model = zoo.create_model("gan_mlp", in_channels=1, rngs=0)
    batches = digits.training_batches(64, seed=0)
    latents = (jax.random.normal(jax.random.fold_in(jax.random.key(0), n), (64, model.latent_size)) for n in range(10**9))
    _, _, losses = train(model, (jnp.asarray(batches[n]["image"]) for n in range(given.steps)), latents, given.d_steps)
    print("discriminator {:.3f}, generator {:.3f} at first; {:.3f} and {:.3f} in the end".format(*losses[0], *losses[-1]))


if __name__ == "__main__":
    main()
