"""Dense layer with its activation, through kernels.linear_act."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import kernels
from zoo.layers import initializers
from zoo.layers.initializers import fan_in_uniform, kaiming_uniform
from zoo.layers.operators import implementation_scope
from zoo.weights.names import TorchTensor


class Linear(nnx.Module):
    """activation(x @ kernel + bias): [..., in_features] to [..., out_features].

    Args:
      activation: None, "relu", "leaky_relu", "tanh" or "gelu", fused into the product.
      negative_slope: of "leaky_relu".
      flattened: (height, width, channels) of the feature map that the input was flattened from, if it was: torch flattens
        channels first, so the kernel's rows are in another order there.
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
        flattened: tuple[int, int, int] | None = None,
        use_bias: bool = True,
        kernel_init: Callable = kaiming_uniform,
        bias_init: Callable | None = None,
        dtype: jnp.dtype | type | None = None,
        param_dtype: jnp.dtype | type = jnp.float32,
        implementation: str | None = None,
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(initializers.kernel(kernel_init, rngs.params(), (in_features, out_features), param_dtype))
        bias_init = bias_init or fan_in_uniform(in_features)
        self.bias = nnx.Param(bias_init(rngs.params(), (out_features,), param_dtype)) if use_bias else None
        self.in_features, self.out_features = in_features, out_features
        self.activation, self.negative_slope = activation, negative_slope
        self.flattened = flattened
        self.dtype, self.implementation = dtype, implementation

    def __call__(self, x: jax.Array) -> jax.Array:
        if x.shape[-1] != self.in_features:
            raise ValueError(f"x: {x.shape} given, the last dimension must be in_features={self.in_features}")
        bias = None if self.bias is None else self.bias[...]
        x, kernel, bias = nnx.nn.dtypes.promote_dtype((x, self.kernel[...], bias), dtype=self.dtype)
        with implementation_scope(self.implementation):
            return kernels.linear_act(x, kernel, bias, self.activation, negative_slope=self.negative_slope)

    def torch_tensors(self) -> dict[str, TorchTensor]:
        def to_torch(kernel: np.ndarray) -> np.ndarray:
            if self.flattened is not None:
                kernel = kernel.reshape(*self.flattened, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
            return kernel.T

        def from_torch(weight: np.ndarray) -> np.ndarray:
            kernel = weight.T
            if self.flattened is not None:
                height, width, channels = self.flattened
                kernel = kernel.reshape(channels, height, width, -1).transpose(1, 2, 0, 3).reshape(kernel.shape)
            return kernel

        weight = TorchTensor(self.kernel, to_torch, from_torch)
        return {"weight": weight} if self.bias is None else {"weight": weight, "bias": TorchTensor(self.bias)}
