"""Transposed convolution through kernels.conv_transpose."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

import kernels
from kernels.conv_transpose.xla import FORMS
from zoo.layers.initializers import kaiming_uniform
from zoo.layers.operators import implementation_scope
from zoo.weights.names import TorchTensor


class ConvTranspose(nnx.Module):
    """Transposed 2-D convolution of [batch, height, width, in_channels], as torch.nn.ConvTranspose2d.

    Args:
      kernel_size, stride, padding: one number each.
      form: see kernels.conv_transpose.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        use_bias: bool = True,
        form: str | None = None,
        kernel_init: Callable = kaiming_uniform,
        dtype: jnp.dtype | type | None = None,
        param_dtype: jnp.dtype | type = jnp.float32,
        implementation: str | None = None,
        rngs: nnx.Rngs,
    ):
        if form not in (None, *FORMS):
            raise ValueError(f"form: {form!r} given, it is one of {', '.join(FORMS)} or None")
        shape = (kernel_size, kernel_size, in_channels, out_channels)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, param_dtype))
        self.bias = nnx.Param(jnp.zeros((out_channels,), param_dtype)) if use_bias else None
        self.in_channels, self.out_channels = in_channels, out_channels
        self.stride, self.padding, self.form = stride, padding, form
        self.dtype, self.implementation = dtype, implementation

    def __call__(self, x: jax.Array) -> jax.Array:
        bias = None if self.bias is None else self.bias[...]
        x, kernel, bias = nnx.nn.dtypes.promote_dtype((x, self.kernel[...], bias), dtype=self.dtype)
        with implementation_scope(self.implementation):
            y = kernels.conv_transpose(x, kernel, self.stride, self.padding, form=self.form)
        return y if bias is None else y + bias

    def torch_tensors(self) -> dict[str, TorchTensor]:
        layout = TorchTensor(
            self.kernel, to_torch=lambda k: k.transpose(2, 3, 0, 1), from_torch=lambda k: k.transpose(2, 3, 0, 1)
        )
        return {"weight": layout} | ({} if self.bias is None else {"bias": TorchTensor(self.bias)})
