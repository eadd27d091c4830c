"""Layers against torch, in float64 where a gradient is compared, and options that must not change the function."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import zoo
from zoo.layers import initializers
from zoo.layers.conv import Conv
from zoo.layers.dropout import drop_path, dropout
from zoo.layers.norm import BatchNormAct
from zoo.layers.pooling import adaptive_avg_pool
from zoo.models.googlenet import Inception
from zoo.weights import torch_arrays


def to_torch(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def from_torch(x: torch.Tensor) -> np.ndarray:
    return x.detach().numpy().transpose(0, 2, 3, 1)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1, "groups": 4},
        {"kernel_size": (3, 5), "strides": (2, 1), "padding": ((1, 1), (2, 2)), "use_bias": False},
        {"kernel_size": 3, "padding": 2, "dilation": 2},
    ],
)
def test_conv_and_its_gradients(options: dict, rng: np.random.Generator) -> None:
    with jax.enable_x64(True):
        layer = Conv(8, 12, **options, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        padding = layer.padding[0][0], layer.padding[1][0]
        groups, dilation = options.get("groups", 1), options.get("dilation", 1)
        peer = torch.nn.Conv2d(
            8, 12, options["kernel_size"], options.get("strides", 1), padding, dilation, groups, bias=layer.bias is not None
        ).double()
        zoo.load_weights(layer, peer.state_dict())
        x = rng.normal(size=(2, 9, 8, 8))
        graph, state = nnx.split(layer)
        value, pull = jax.vjp(lambda state, x: nnx.merge(graph, state)(x), state, jnp.asarray(x))
        images = to_torch(x).requires_grad_()
        expected = peer(images)
        np.testing.assert_allclose(value, from_torch(expected), rtol=1e-9, atol=1e-12)
        weight = rng.normal(size=value.shape)
        gradient, dx = pull(jnp.asarray(weight))
        expected.backward(to_torch(weight))
        np.testing.assert_allclose(dx, from_torch(images.grad), rtol=1e-9, atol=1e-11)
        nnx.update(layer, gradient)
        for name, parameter in peer.named_parameters():
            np.testing.assert_allclose(torch_arrays(layer)[name], parameter.grad.numpy(), rtol=1e-9, atol=1e-11)


def test_batch_norm_follows_torch_over_steps(rng: np.random.Generator) -> None:
    peer, layer = torch.nn.BatchNorm2d(6, momentum=0.3), BatchNormAct(6, activation=None, momentum=0.3, rngs=nnx.Rngs(0))
    for _ in range(3):
        x = rng.normal(3, 2, size=(2, 3, 2, 6)).astype(np.float32)
        np.testing.assert_allclose(layer(x), from_torch(peer(to_torch(x))), atol=1e-5)  # float32
    for name, value in peer.state_dict().items():
        np.testing.assert_allclose(torch_arrays(layer)[name], value.numpy(), rtol=1e-6)
    assert torch_arrays(layer)["num_batches_tracked"].dtype == np.int64
    with pytest.raises(ValueError, match="one value per channel"):
        layer(x[:1, :1, :1])


@pytest.mark.parametrize(("height", "width", "size"), [(14, 13, 4), (3, 2, 4), (6, 6, 6), (1, 9, 7)])
def test_adaptive_avg_pool(height: int, width: int, size: int, rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, height, width, 3)).astype(np.float32)
    expected = from_torch(torch.nn.functional.adaptive_avg_pool2d(to_torch(x), size))
    np.testing.assert_allclose(adaptive_avg_pool(x, size), expected, atol=1e-6)  # float32 means


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(7, 2, 3), (11, 4, 2), (3, 2, 1), (5, 3, 0)])
@pytest.mark.parametrize("size", [(33, 34), (35, 40)])
def test_space_to_depth_is_the_same_function(
    kernel: int, stride: int, padding: int, size: tuple[int, int], rng: np.random.Generator
) -> None:
    build = lambda flag: Conv(3, 4, kernel, strides=stride, padding=padding, space_to_depth=flag, rngs=nnx.Rngs(0))
    x = rng.normal(size=(2, *size, 3)).astype(np.float32)
    # Float32 sums of up to 363 products in another order.
    np.testing.assert_allclose(build(True)(x), build(False)(x), atol=1e-5)


def test_merged_branches_are_the_same_function(rng: np.random.Generator) -> None:
    """Outputs, gradients and running statistics, over two steps."""

    def outcome(merge: bool, xs: np.ndarray) -> list[np.ndarray]:
        dtypes = {"dtype": jnp.float64, "param_dtype": jnp.float64}
        options = {"third_kernel": 3, "merge_branches": merge, "implementation": None, "kernel_init": initializers.normal(0.1)}
        module = Inception((12, 8, 4, 8, 4, 8, 4), **options, **dtypes, rngs=nnx.Rngs(0))
        loss = lambda module, x: (jnp.sum(jnp.sin(y := module(x))), y)
        step = nnx.jit(nnx.value_and_grad(loss, argnums=(nnx.DiffState(0, nnx.Param), 1), has_aux=True))
        results = [step(module, x) for x in xs]
        return [np.asarray(a) for a in jax.tree.leaves((results, nnx.state(module)))]

    with jax.enable_x64(True):
        xs = jnp.asarray(rng.normal(size=(2, 2, 6, 5, 12)))
        merged, apart = outcome(True, xs), outcome(False, xs)
    assert len(merged) == len(apart)
    for one, other in zip(merged, apart, strict=True):
        assert one.dtype == other.dtype != np.float32
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10)  # float64 sums in another order


def test_dropout_and_drop_path() -> None:
    x = jnp.ones((64, 4, 4, 2))
    units = dropout(0.25, rngs=nnx.Rngs(0))(x)
    assert set(np.unique(units).tolist()) == {0.0, float(np.float32(1 / 0.75))}
    assert 0.7 < float((units > 0).mean()) < 0.8
    branches = drop_path(0.5, rngs=nnx.Rngs(0))(x)
    assert set(np.unique(branches.reshape(64, -1).std(1)).tolist()) == {0.0}
    assert 16 < int((branches[:, 0, 0, 0] > 0).sum()) < 48
    assert dropout(0.0, rngs=nnx.Rngs(0)) is None
    with pytest.raises(ValueError, match=r"stochastic_depth: 1.5 given"):
        drop_path(1.5, rngs=nnx.Rngs(0))


def test_initial_values_are_the_same_inside_and_outside_of_jit() -> None:
    shape = (3, 3, 64, 120)  # more than one block
    for init in (initializers.kaiming_uniform, initializers.kaiming_normal_fan_out, initializers.normal(0.01)):
        eager = init(jax.random.key(0), shape)
        # The normal's inverse error function may be compiled differently.
        np.testing.assert_allclose(eager, jax.jit(lambda key, init=init: init(key, shape))(jax.random.key(0)), rtol=1e-5)
        assert eager.dtype == jnp.float32
    np.testing.assert_allclose(eager.std(), 0.01, rtol=0.02)  # of 69,120 draws
    assert initializers.kaiming_normal(jax.random.key(0), (4, 4), jnp.bfloat16).dtype == jnp.bfloat16
    assert len(np.unique(eager)) > 0.9 * eager.size  # the blocks differ
