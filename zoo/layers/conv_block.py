"""Convolution, optional batch normalization, ReLU: the unit that VGG and GoogLeNet are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from zoo.layers.conv import Conv, merged_conv
from zoo.layers.norm import BatchNormAct, FoldedNorm, merged_batch_norm_act


class ConvBlock(nnx.Module):
    """relu(batch_norm(conv(x))), or relu(conv(x)) without `norm`; [batch, height, width, channels] in and out.

    Args:
      norm: whether to normalize.
      epsilon: of the batch normalization.
      use_bias: whether the convolution has a bias; None for: where there is no norm.
      **conv: further keywords of `Conv` (strides, padding, space_to_depth, initial values).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        norm: bool = True,
        epsilon: float = 1e-5,
        use_bias: bool | None = None,
        kernel_init: Callable,
        dtype: jnp.dtype | type | None = None,
        param_dtype: jnp.dtype | type = jnp.float32,
        implementation: str | None = None,
        rngs: nnx.Rngs,
        **conv: Any,
    ):
        policy: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "implementation": implementation, "rngs": rngs}
        use_bias = not norm if use_bias is None else use_bias
        self.conv = Conv(in_channels, out_channels, kernel_size, use_bias=use_bias, kernel_init=kernel_init, **policy, **conv)
        self.bn: BatchNormAct | FoldedNorm | None = BatchNormAct(out_channels, epsilon=epsilon, **policy) if norm else None

    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        return [("conv", "bn")]

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv(x)
        return jax.nn.relu(y) if self.bn is None else self.bn(y)


def merged_blocks(blocks: list[ConvBlock], x: jax.Array) -> list[jax.Array]:
    """``[block(x) for block in blocks]`` as one convolution and one normalization, which read x once."""
    y = merged_conv([block.conv for block in blocks], x)
    norms = [block.bn for block in blocks if isinstance(block.bn, BatchNormAct)]
    y = merged_batch_norm_act(norms, y) if norms else jax.nn.relu(y)
    widths = [block.conv.out_channels for block in blocks]
    return jnp.split(y, [sum(widths[:count]) for count in range(1, len(widths))], axis=-1)
