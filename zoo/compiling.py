"""What XLA's compiler for CPUs is told, where its own choice is slow."""

from __future__ import annotations

import functools

import jax

# XLA:CPU gives products, sums and convolutions to YNNPACK. Its convolutions take up to twice the time of Eigen's, the gradients
# of their weights up to six times; products and sums stay with it.
CPU = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"}


@functools.cache
def _options(platform: str) -> tuple[tuple[str, str], ...]:
    if platform != "cpu":
        return ()
    try:
        jax.jit(lambda: 0, compiler_options=CPU).lower().compile()
    except (ValueError, RuntimeError):  # a version of XLA that does not know the option
        return ()
    return tuple(CPU.items())


def compiler_options() -> dict[str, str]:
    """Options with which XLA compiles the models of this package, and programs like them, to faster code.

    For `jax.jit` and `jax.stages.Lowered.compile`: `jax.jit(step, compiler_options=zoo.compiler_options())`.
    JAX takes them for the outermost `jax.jit` alone; `flax.nnx.jit` has no argument for them, `zoo.functional` makes a model a
    function for `jax.jit`. Without them everything works, more slowly. Sums are taken in another
    order, so that results differ by rounding. The trainer, `evaluate`, `zoo.predict` and the comparison use them.

    Returns:
      On a CPU, convolutions by Eigen instead of YNNPACK; docs/training.md has what that gains. Elsewhere, and where
      XLA does not know the option, nothing.
    """
    return dict(_options(jax.default_backend()))
