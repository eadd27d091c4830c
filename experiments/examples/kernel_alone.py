"""One kernel without the zoo: python -m experiments.examples.kernel_alone.

A max-pool from kernels/ in code that knows neither NNX nor the zoo. On an NVIDIA GPU the hand-written kernel runs where it was
measured to win, elsewhere plain XLA; which of them can run here, and why not, `kernels.available` says.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

import kernels


def smallest_of_maxima(images: jax.Array) -> jax.Array:
    return kernels.max_pool(images, 3, strides=2, padding=((1, 1), (1, 1))).min()


def main() -> None:
    images = jnp.arange(2 * 9 * 9 * 4, dtype=jnp.float32).reshape(2, 9, 9, 4)
    value, gradient = jax.jit(jax.value_and_grad(smallest_of_maxima))(images)
    with kernels.use("xla"):
        reference = jax.jit(smallest_of_maxima)(images)
    print(f"value {value} (plain XLA: {reference}), gradient at {int((gradient != 0).sum())} pixel")
    for name, reason in kernels.available("max_pool").items():
        print(f"  {name}: {reason or 'runs here'}")


if __name__ == "__main__":
    main()
