"""zoo.fold_batch_norm: outputs as before, no batch norm left where a convolution precedes it, the model as it was."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from zoo.layers.conv import Conv
from zoo.layers.conv_transpose import ConvTranspose
from zoo.layers.norm import BatchNormAct, FoldedNorm
from zoo.models.resnet import BasicBlock

# Batch norms of each model, every one of which a convolution precedes.
NORMS = {
    "dcgan": 4 + 3,  # generator and discriminator
    "googlenet": 3 + 9 * 6 + 2,  # stem, inception modules, auxiliary classifiers
    "resnet18": 20,
    "resnet34": 36,
    "resnet50": 53,
    "resnet101": 104,
    "resnet152": 155,
    "resnext50_32x4d": 53,
    "resnext101_32x8d": 104,
    "resnext101_64x4d": 104,
    "wide_resnet50_2": 53,
    "wide_resnet101_2": 104,
    "resnet20_cifar": 19,
    "resnet32_cifar": 31,
    "resnet44_cifar": 43,
    "resnet56_cifar": 55,
    "resnet110_cifar": 109,
    "vgg11_bn": 8,
    "vgg13_bn": 10,
    "vgg16_bn": 13,
    "vgg19_bn": 16,
}
# float32 rounds to 6e-8; kernels are rounded once more, and sums are taken of other terms. A wrong channel changes all digits.
CLOSE = 1e-5


def count(model: nnx.Module, kind: type) -> int:
    return sum(isinstance(node, kind) for _, node in nnx.iter_graph(model))


def drawn(build: Callable[[], nnx.Module], rng: np.random.Generator) -> nnx.Module:
    """The model with every value drawn: kernels as He et al. 2015 have them, scales of both signs and next to zero."""
    model: Any = nnx.eval_shape(build)
    for path, variable in nnx.iter_graph(model):
        if not isinstance(variable, nnx.Param | nnx.BatchStat):
            continue
        shape, dtype = variable.get_value().shape, variable.get_value().dtype
        if path[-1] == "num_batches_tracked":
            value = np.zeros(shape)
        elif path[-1] == "var":
            value = rng.uniform(0.2, 2, shape)
        elif path[-1] == "scale":
            value = rng.uniform(-1.2, 1.2, shape) * rng.choice([1, 1, 1, 1e-3, 0], shape)
        else:
            bound = np.sqrt(6 / np.prod(shape[:-1])) if path[-1] == "kernel" else 0.5
            value = (2 * rng.random(shape, np.float32) - 1) * np.float32(bound)
        variable.set_value(jnp.asarray(value, dtype))
    # Random streams, which evaluation does not use, are made as the model makes them.
    for path, variable in nnx.iter_graph(model):
        if isinstance(variable, nnx.RngState):
            value = jax.random.key(0) if path[-1] == "key" else jnp.uint32(0)
            variable.set_value(value)
    return model


def batch(model: Any, rng: np.random.Generator) -> jax.Array:
    """The smallest images, or latent vectors, that a model takes."""
    shape = (2, 32, 32, 3) if hasattr(model, "input_layer") else (2, *zoo.model_info(model.zoo_name).input_shape)
    return jnp.asarray(rng.normal(size=shape), model.zoo_options and jnp.float32)


def assert_close(found: Any, expected: Any, tolerance: float) -> None:
    """Each array up to `tolerance` of its largest value."""
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == theirs.dtype
        largest = np.abs(theirs).max()
        assert 0 < largest < np.inf
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize("name", NORMS)
def test_every_model_with_batch_norm(name: str, rng: np.random.Generator) -> None:
    # Without the dense layers of VGG, which are most of its parameters and not concerned.
    options: dict[str, Any] = {"features_only": True} if name.startswith("vgg") else {}
    model = drawn(lambda: zoo.create_model(name, **options), rng)
    folded = zoo.fold_batch_norm(model)
    assert count(model, BatchNormAct) == NORMS[name]
    assert (count(folded, BatchNormAct), count(folded, FoldedNorm)) == (0, NORMS[name])
    x = batch(model, rng)
    assert_close(zoo.features(folded, x), zoo.features(zoo.evaluation_view(model), x), CLOSE)
