"""Convolution in plain JAX."""

from __future__ import annotations

import jax

from kernels.conv import cpu
from kernels.runtime import dispatch

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]


def conv(x: jax.Array, w: jax.Array, strides: Pair, pads: Pads, groups: int, dilation: Pair) -> jax.Array:
    """XLA's convolution; on a CPU the faster of several forms of equal result."""
    if dispatch.device().platform == "cpu" and dilation == (1, 1):
        if groups == 1:
            return cpu.conv(x, w, strides, pads)
        if groups <= cpu.MOST_GROUPS:
            return cpu.grouped(x, w, strides, pads, groups)
    return cpu.lax_conv(x, w, strides, pads, groups, dilation)
