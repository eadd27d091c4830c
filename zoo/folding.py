"""Batch normalization as part of the convolution before it, for inference."""

from __future__ import annotations

import collections
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from zoo.functional import evaluation_view
from zoo.layers.conv import Conv
from zoo.layers.conv_transpose import ConvTranspose
from zoo.layers.norm import BatchNormAct, FoldedNorm
from zoo.weights.names import layer_at


def fold_batch_norm(model: nnx.Module) -> nnx.Module:
    """A copy for inference with each batch norm folded into the convolution before it.

    In evaluation mode a batch norm is a factor and a shift per channel. The factor is multiplied into the convolution's kernel,
    the shift is added to its bias, in at least float32; activation and residual stay. Outputs agree up to rounding. `model` is
    unchanged, and later training does not affect the copy. Fold once and reuse the copy: folding inside a compiled function
    works, also under `nnx.eval_shape`, but costs a pass over all kernels in each call.

    A module lists its pairs of a convolution and the norm that alone reads its output in a method
    ``conv_norm_pairs() -> list[tuple[str, str]]`` of dotted paths, such as [("conv1", "bn1"), ("shortcut.0", "shortcut.1")].
    A pair is not folded if one of its layers is in another pair or shared with another module, or if the convolution is not
    one of this package's layers, such as one in a `SpectralNorm`.

    The copy has other arrays than a model of `create_model`, so `save_model` refuses it: save the model, fold after loading.

    Returns:
      The copy, in evaluation mode. It shares no array with `model`.

    Jacob et al. 2018, Quantization and training of neural networks for efficient integer-arithmetic-only inference, 3.2.
    """
    folded = nnx.clone(evaluation_view(model), arrays=True)
    modules = [node for _, node in nnx.iter_graph(folded) if isinstance(node, nnx.Module)]
    pairs = [_pair(module, *paths) for module in modules for paths in getattr(module, "conv_norm_pairs", list)()]
    # Each layer of a pair is counted where a module holds it and once more in each pair.
    uses = collections.Counter(id(child) for module in modules for child in vars(module).values())
    uses.update(id(layer) for pair in pairs for layer in pair[:2])
    for convolution, norm, parent, name in pairs:
        alone = uses[id(convolution)] == uses[id(norm)] == 2
        if alone and isinstance(convolution, Conv | ConvTranspose) and isinstance(norm, BatchNormAct):
            bias = None if convolution.bias is None else convolution.bias[...]
            statistics = norm.scale[...], norm.bias[...], norm.mean[...], norm.var[...]
            kernel, bias = _folded(convolution.kernel[...], bias, *statistics, norm.epsilon)
            # New variables, since the old ones may be another layer's too.
            convolution.kernel, convolution.bias = nnx.data(nnx.Param(kernel)), nnx.data(nnx.Param(bias))
            setattr(parent, name, FoldedNorm(norm.activation, norm.dtype))
    return folded


def _pair(module: nnx.Module, convolution: str, norm: str) -> tuple[Any, Any, Any, str]:
    """The two layers at these paths; the module that holds the norm, and its name there."""
    holder, _, name = norm.rpartition(".")
    parent = layer_at(module, holder) if holder else module
    return layer_at(module, convolution), layer_at(module, norm), parent, name


@functools.partial(jax.jit, static_argnames="epsilon")
def _folded(
    kernel: jax.Array,
    bias: jax.Array | None,
    scale: jax.Array,
    shift: jax.Array,
    mean: jax.Array,
    var: jax.Array,
    epsilon: float,
) -> tuple[jax.Array, jax.Array]:
    """Kernel [height, width, in, out] and bias [out] of the convolution that normalizes."""
    dtype, wide = kernel.dtype, jnp.promote_types(kernel.dtype, jnp.float32)
    kernel, scale, shift, mean, var = (value.astype(wide) for value in (kernel, scale, shift, mean, var))
    factor = scale / jnp.sqrt(var + epsilon)
    centre = mean if bias is None else mean - bias.astype(wide)
    return (kernel * factor).astype(dtype), (shift - centre * factor).astype(dtype)
