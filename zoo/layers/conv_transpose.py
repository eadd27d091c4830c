"""Transposed convolution as ordinary convolutions."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

import kernels
from zoo.layers.initializers import kaiming_uniform
from zoo.layers.operators import implementation_scope
from zoo.weights.names import TorchTensor

FORMS = ("dilated", "subpixel", "matmul")


def conv_transpose(x: jax.Array, kernel: jax.Array, stride: int, padding: int, form: str | None = None) -> jax.Array:
    """torch's conv_transpose2d: y[stride * i + a - padding] += x[i] @ kernel[a], in both directions.

    Three forms of the same sum:

    - "dilated": a convolution of x with stride - 1 zeros between its values. Of every stride^2 products only one is not with
      a zero. XLA:CPU computes them all; cuDNN, which knows this as the gradient of a convolution, none of the others.
    - "subpixel": one ordinary convolution of x that gives stride^2 output channels for each one, which are then laid out as
      stride x stride pixels (Shi et al. 2016). No product with an inserted zero; needs a kernel size divisible by the stride.
    - "matmul": for a 1x1 input, whose every value meets every element of the kernel once.

    Args:
      x: [batch, height, width, in].
      kernel: [kernel_height, kernel_width, in, out], not flipped: torch's [in, out, height, width] transposed.
      stride, padding: as torch's.
      form: None for the best that fits: matmul, else subpixel on a CPU, else dilated (docs/training.md has the figures).

    Returns:
      [batch, (height - 1) * stride - 2 * padding + kernel_height, ... likewise, out].

    Raises:
      ValueError: the form does not fit the shapes.
    """
    kernel_height, kernel_width, _, channels = kernel.shape
    batch, height, width, _ = x.shape
    divisible = kernel_height % stride == 0 == kernel_width % stride
    fits = {"matmul": height == width == 1, "subpixel": divisible, "dilated": True}
    order = ("matmul", "subpixel", "dilated") if kernels.device().platform == "cpu" else ("matmul", "dilated")
    form = form or next(name for name in order if fits[name])
    if form not in fits or not fits[form]:
        raise ValueError(f"form: {form!r} does not fit x {x.shape}, kernel {kernel.shape}, stride {stride}")
    if form == "matmul":
        flat = kernel.transpose(2, 0, 1, 3).reshape(kernel.shape[2], -1)
        y = kernels.linear_act(x.reshape(batch, -1), flat, None, None).reshape(batch, kernel_height, kernel_width, channels)
        return _crop(y, padding)
    if form == "dilated":
        pads = [(size - 1 - padding, size - 1 - padding) for size in (kernel_height, kernel_width)]
        return jax.lax.conv_general_dilated(
            x, kernel[::-1, ::-1], (1, 1), pads, lhs_dilation=(stride, stride), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    taps = (kernel_height // stride, kernel_width // stride)
    # kernel[stride * t + r] is what tap t of phase r is multiplied with; the taps run backwards over x.
    phases = kernel.reshape(taps[0], stride, taps[1], stride, -1, channels)[::-1, :, ::-1]
    phases = phases.transpose(0, 2, 4, 1, 3, 5).reshape(*taps, -1, stride * stride * channels)
    y = kernels.conv(x, phases, 1, tuple((tap - 1, tap - 1) for tap in taps))
    rows, columns = y.shape[1:3]
    y = y.reshape(batch, rows, columns, stride, stride, channels).transpose(0, 1, 3, 2, 4, 5)
    return _crop(y.reshape(batch, rows * stride, columns * stride, channels), padding)


def _crop(y: jax.Array, padding: int) -> jax.Array:
    return y[:, padding : y.shape[1] - padding, padding : y.shape[2] - padding] if padding else y


class ConvTranspose(nnx.Module):
    """Transposed 2-D convolution of [batch, height, width, in_channels], as torch.nn.ConvTranspose2d.

    Args:
      kernel_size, stride, padding: one number each.
      form: see `conv_transpose`.
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
            y = conv_transpose(x, kernel, self.stride, self.padding, self.form)
        return y if bias is None else y + bias

    def torch_tensors(self) -> dict[str, TorchTensor]:
        layout = TorchTensor(
            self.kernel, to_torch=lambda k: k.transpose(2, 3, 0, 1), from_torch=lambda k: k.transpose(2, 3, 0, 1)
        )
        return {"weight": layout} | ({} if self.bias is None else {"bias": TorchTensor(self.bias)})
