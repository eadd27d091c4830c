"""mlp and lenet5: a whole small network as one operator."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import kernels
from tests.kernels.checking import DTYPES, HAND, TOLERANCE, assert_close, assert_matches_float64, normal


def layers(sizes, dtype, seed=10):
    weights = [normal(seed + i, size, dtype, scale=size[-2] ** -0.5) for i, size in enumerate(sizes)]
    biases = [normal(seed + 20 + i, size[-1:]) for i, size in enumerate(sizes)]
    return weights, biases


def plain_mlp(x, weights, biases, activation, final):
    for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
        x = x @ w + b
        x = (activation if i < len(weights) - 1 else final)(x)
    return x


def identity(x):
    return x


# the generator and the discriminator of gan_mlp, and odd sizes
MLPS = [
    (19, (100, 256, 70), "relu", "tanh", jax.nn.relu, jnp.tanh),
    (33, (70, 256, 1), "leaky_relu", None, lambda x: jnp.where(x > 0, x, 0.2 * x), identity),
    (5, (7, 11, 3), "gelu", None, lambda x: jax.nn.gelu(x, approximate=False), identity),
]


@pytest.mark.parametrize("implementation", ["xla", *HAND])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", MLPS, ids=["generator", "discriminator", "odd"])
def test_mlp_matches_float64(implementation, dtype, case):
    rows, (inputs, hidden, outputs), activation, final, *functions = case
    weights, biases = layers([(inputs, hidden), (hidden, outputs)], dtype)
    flat = (normal(0, (rows, inputs), dtype), *weights, *biases)
    hand = lambda x, w0, w1, b0, b1: kernels.mlp(x, [w0, w1], [b0, b1], activation, final, implementation=implementation)
    reference = lambda x, w0, w1, b0, b1: plain_mlp(x, [w0, w1], [b0, b1], *functions)
    with jax.default_matmul_precision("highest"):
        # gradients pass through two rounded layers
        assert_matches_float64(hand, reference, flat, 4 * TOLERANCE[dtype.dtype.name])


def lenet5_by_hand(x, weights, biases):
    for w, b in zip(weights[:2], biases[:2], strict=True):
        x = jax.lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        n, height, width, channels = x.shape
        x = jnp.maximum(x + b, 0).reshape(n, height // 2, 2, width // 2, 2, channels).max((2, 4))
    relu = lambda x: jnp.maximum(x, 0)
    return plain_mlp(x.reshape(len(x), -1), weights[2:], biases[2:], relu, identity)


@pytest.mark.parametrize("implementation", ["xla", *HAND])
@pytest.mark.parametrize(("batch", "channels", "dtype"), [(3, 1, jnp.float32), (18, 3, jnp.bfloat16), (1, 1, jnp.float16)])
def test_lenet5_matches_float64(implementation, batch, channels, dtype):
    shapes = [(5, 5, channels, 6), (5, 5, 6, 16), (400, 120), (120, 84), (84, 10)]
    weights, biases = layers(shapes, dtype)
    x = normal(0, (batch, 32, 32, channels), dtype)
    with jax.default_matmul_precision("highest"):
        logits = kernels.lenet5(x, weights, biases, implementation=implementation)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), (x, weights, biases))
        expected = jax.device_get(lenet5_by_hand(*wide))
    assert_close(logits, expected, 4 * TOLERANCE[dtype.dtype.name], "logits")  # five layers, each rounded to dtype


@pytest.mark.parametrize("implementation", HAND)
def test_lenet5s_gradient_is_xlas(implementation):
    shapes = [(5, 5, 1, 6), (5, 5, 6, 16), (400, 120), (120, 84), (84, 10)]
    weights, biases = layers(shapes, jnp.float32)
    x = normal(0, (2, 32, 32, 1))
    loss = lambda w, i: jnp.sum(jnp.square(kernels.lenet5(x, w, biases, implementation=i)))
    hand, expected = (jax.grad(loss)(weights, i) for i in (implementation, "xla"))
    for h, e in zip(hand, expected, strict=True):
        assert_close(h, e, 1e-5, "gradient")  # only the output, which the loss squares, is the kernel's


def test_bad_arguments_are_named():
    x, w, b = jnp.zeros((2, 4)), jnp.zeros((4, 3)), jnp.zeros(3)
    with pytest.raises(ValueError, match=r"weights\[1\]: shape \(4, 3\) is not \(3, 3\)"):
        kernels.mlp(x, [w, w], [b, b])
    with pytest.raises(ValueError, match="weights, biases: 1 and 2 arrays"):
        kernels.mlp(x, [w], [b, b])
    with pytest.raises(kernels.ImplementationError, match="takes two layers, and was given 1"):
        kernels.mlp(x, [w], [b], implementation="interpret")
    with pytest.raises(ValueError, match=r"x: shape \(1, 28, 28, 1\)"):
        kernels.lenet5(jnp.zeros((1, 28, 28, 1)), [w] * 5, [b] * 5)
    with pytest.raises(ValueError, match=r"weights\[0\]: shape"):
        kernels.lenet5(jnp.zeros((1, 32, 32, 1)), [w] * 5, [b] * 5)
