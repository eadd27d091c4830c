"""Initial values, named after what torch's layers draw by default."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

# Uniform within 1 / sqrt(fan_in): torch's kaiming_uniform_(a=sqrt(5)), the default of its Linear and Conv2d.
kaiming_uniform = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# Normal with variance 2 / fan_out (He et al. 2015): torch's kaiming_normal_(mode="fan_out", nonlinearity="relu").
kaiming_normal_fan_out = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def fan_in_uniform(fan_in: int) -> Callable:
    """Uniform within 1 / sqrt(fan_in), for a bias, whose own shape does not tell the fan-in."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype | type = jnp.float32) -> jax.Array:
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
