"""Dense layer with its activation, through kernels.linear_act."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

import kernels
from zoo.layers.initializers import fan_in_uniform, kaiming_uniform


class Linear(nnx.Module):
    """activation(x @ kernel + bias): [..., in_features] to [..., out_features].

    Args:
      activation: None, "relu", "leaky_relu", "tanh" or "gelu", fused into the product.
      negative_slope: of "leaky_relu".
      dtype: dtype of the computation; None for the promotion of input and kernel.
      implementation: see kernels.linear_act.

    The kernel is [in_features, out_features]; the initial values are torch's own (uniform within 1 / sqrt(in_features)).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activation: str | None = None,
        negative_slope: float = 0.01,
        use_bias: bool = True,
        kernel_init: Callable = kaiming_uniform,
        bias_init: Callable | None = None,
        dtype: jnp.dtype | type | None = None,
        param_dtype: jnp.dtype | type = jnp.float32,
        implementation: str | None = None,
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(kernel_init(rngs.params(), (in_features, out_features), param_dtype))
        bias_init = bias_init or fan_in_uniform(in_features)
        self.bias = nnx.Param(bias_init(rngs.params(), (out_features,), param_dtype)) if use_bias else None
        self.in_features, self.out_features = in_features, out_features
        self.activation, self.negative_slope = activation, negative_slope
        self.dtype, self.implementation = dtype, implementation

    def __call__(self, x: jax.Array) -> jax.Array:
        if x.shape[-1] != self.in_features:
            raise ValueError(f"x: {x.shape} given, the last dimension must be in_features={self.in_features}")
        bias = None if self.bias is None else self.bias[...]
        x, kernel, bias = nnx.nn.dtypes.promote_dtype((x, self.kernel[...], bias), dtype=self.dtype)
        return kernels.linear_act(
            x, kernel, bias, self.activation, negative_slope=self.negative_slope, implementation=self.implementation
        )
