"""Convolution through kernels.conv."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

import kernels
from kernels.runtime.sizes import cdiv
from zoo.layers import initializers
from zoo.layers.initializers import fan_in_uniform, kaiming_uniform
from zoo.layers.operators import implementation_scope
from zoo.weights.names import TorchTensor

Pair = int | tuple[int, int]


class Conv(nnx.Module):
    """2-D convolution of [batch, height, width, in_channels] to [batch, height', width', out_channels].

    Args:
      in_channels, out_channels: both divisible by `groups`.
      kernel_size, strides, dilation: one number, or (vertical, horizontal).
      padding: "SAME", "VALID", one number, or ((top, bottom), (left, right)).
      use_bias: whether to add a bias per output channel.
      space_to_depth: compute a strided convolution as one of stride 1 over blocks of strides x strides pixels. The same
        function, with parameters of the same shape; a stem of three channels then moves fewer bytes on a GPU or TPU.
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
        space_to_depth: bool = False,
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
        self.kernel = nnx.Param(initializers.kernel(kernel_init, rngs.params(), shape, param_dtype))
        bias_init = bias_init or fan_in_uniform(height * width * in_channels // groups)
        self.bias = nnx.Param(bias_init(rngs.params(), (out_channels,), param_dtype)) if use_bias else None
        self.strides, self.groups, self.dilation = strides, groups, dilation
        self.padding = ((padding, padding), (padding, padding)) if isinstance(padding, int) else padding
        self.in_channels, self.out_channels = in_channels, out_channels
        self.space_to_depth = space_to_depth
        self.dtype, self.implementation = dtype, implementation
        if space_to_depth and (not isinstance(strides, int) or isinstance(self.padding, str) or groups != 1 or dilation != 1):
            raise ValueError("space_to_depth: needs one number for strides, numbers for padding, one group and no dilation")

    def __call__(self, x: jax.Array) -> jax.Array:
        return merged_conv([self], x)

    def torch_tensors(self) -> dict[str, TorchTensor]:
        weight = TorchTensor(self.kernel, lambda k: k.transpose(3, 2, 0, 1), lambda w: w.transpose(2, 3, 1, 0))
        return {"weight": weight} if self.bias is None else {"weight": weight, "bias": TorchTensor(self.bias)}


def merged_conv(layers: list[Conv], x: jax.Array) -> jax.Array:
    """The outputs of several convolutions of one input, side by side in the channels, by one call of the operator.

    All of `layers` have the kernel size and settings of the first.
    """
    first = layers[0]
    if x.shape[-1] != first.in_channels:
        raise ValueError(f"x: shape {x.shape} given, the last dimension must be in_channels={first.in_channels}")

    def joined(parts: list[jax.Array]) -> jax.Array:
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)

    kernel = joined([layer.kernel[...] for layer in layers])
    bias = None if first.bias is None else joined([layer.bias[...] for layer in layers if layer.bias is not None])
    x, kernel, bias = nnx.nn.dtypes.promote_dtype((x, kernel, bias), dtype=first.dtype)
    strides, padding = first.strides, first.padding
    if first.space_to_depth and isinstance(strides, int) and strides > 1 and not isinstance(padding, str):
        x, kernel = _blocks_to_channels(x, kernel, strides, padding)
        strides, padding = 1, "VALID"
    with implementation_scope(first.implementation):
        y = kernels.conv(x, kernel, strides, padding, groups=first.groups, dilation=first.dilation)
    return y if bias is None else y + bias


def _blocks_to_channels(
    x: jax.Array, kernel: jax.Array, stride: int, padding: tuple[tuple[int, int], tuple[int, int]]
) -> tuple[jax.Array, jax.Array]:
    """Input and kernel of the convolution with stride 1 and no padding that equals the one with `stride` and `padding`.

    Zeros in front of the kernel make the leading padding a multiple of the stride; zeros behind it make its size one.
    """
    pads_x, pads_kernel = [(0, 0)], []
    for size, window, (low, high) in zip(x.shape[1:3], kernel.shape[:2], padding, strict=True):
        outputs = (size + low + high - window) // stride + 1
        front = -low % stride
        taps = cdiv(front + window, stride)
        pads_kernel.append((front, taps * stride - front - window))
        # Rows that the last window does not reach are cropped: a negative padding.
        pads_x.append((low + front, (outputs - 1 + taps) * stride - size - low - front))
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(*pad, 0) for pad in (*pads_x, (0, 0))])
    kernel = jnp.pad(kernel, (*pads_kernel, (0, 0), (0, 0)))
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // stride, stride, width // stride, stride, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // stride, width // stride, -1)
    rows, columns, _, out = kernel.shape
    kernel = kernel.reshape(rows // stride, stride, columns // stride, stride, channels, out)
    return x, kernel.transpose(0, 2, 1, 3, 4, 5).reshape(rows // stride, columns // stride, -1, out)
