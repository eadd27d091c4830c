"""Convolution through kernels.conv."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

import kernels
from zoo.layers.initializers import fan_in_uniform, kaiming_uniform

Pair = int | tuple[int, int]


class Conv(nnx.Module):
    """2-D convolution of [batch, height, width, in_channels] to [batch, height', width', out_channels].

    Args:
      in_channels, out_channels: both divisible by `groups`.
      kernel_size, strides, dilation: one number, or (vertical, horizontal).
      padding: "SAME", "VALID", one number, or ((top, bottom), (left, right)).
      use_bias: whether to add a bias per output channel.
      dtype: dtype of the computation; None for the promotion of input and kernel.
      implementation: see kernels.conv.

    The kernel is [kernel_height, kernel_width, in_channels // groups, out_channels]. The initial values are torch's own
    (He et al. 2015 with a = sqrt(5), which is uniform within 1 / sqrt(fan_in)).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        *,
        strides: Pair = 1,
        padding: str | int | tuple[tuple[int, int], tuple[int, int]] = "VALID",
        groups: int = 1,
        dilation: Pair = 1,
        use_bias: bool = True,
        kernel_init: Callable = kaiming_uniform,
        bias_init: Callable | None = None,
        dtype: jnp.dtype | type | None = None,
        param_dtype: jnp.dtype | type = jnp.float32,
        implementation: str | None = None,
        rngs: nnx.Rngs,
    ):
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels < 1 or channels % groups:
                raise ValueError(f"{name}: {channels} given, a positive multiple of groups={groups} is needed")
        height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        shape = (height, width, in_channels // groups, out_channels)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, param_dtype))
        bias_init = bias_init or fan_in_uniform(height * width * in_channels // groups)
        self.bias = nnx.Param(bias_init(rngs.params(), (out_channels,), param_dtype)) if use_bias else None
        self.strides, self.groups, self.dilation = strides, groups, dilation
        self.padding = ((padding, padding), (padding, padding)) if isinstance(padding, int) else padding
        self.in_channels, self.out_channels = in_channels, out_channels
        self.dtype, self.implementation = dtype, implementation

    def __call__(self, x: jax.Array) -> jax.Array:
        bias = None if self.bias is None else self.bias[...]
        x, kernel, bias = nnx.nn.dtypes.promote_dtype((x, self.kernel[...], bias), dtype=self.dtype)
        y = kernels.conv(
            x,
            kernel,
            self.strides,
            self.padding,
            groups=self.groups,
            dilation=self.dilation,
            implementation=self.implementation,
        )
        return y if bias is None else y + bias
