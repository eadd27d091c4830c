"""Matrix product, bias, activation and dropout against float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kernels
from kernels.linear_act import xla
from kernels.runtime import activations
from tests.kernels.checking import DTYPES, HAND, TOLERANCE, assert_matches_float64, few, normal


@pytest.mark.parametrize("implementation", ["xla", *HAND])
@few
@given(
    leading=st.lists(st.integers(1, 9), max_size=2),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 40),
    activation=st.sampled_from(activations.NAMES),
    rate=st.sampled_from([0.0, 0.0, 0.4]),
    with_bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_matches_float64(implementation, leading, inputs, outputs, activation, rate, with_bias, seed):
    dtype = DTYPES[seed % 3]
    x, w, b = normal(seed, (*leading, inputs), dtype), normal(seed + 1, (inputs, outputs), dtype), normal(seed + 2, (outputs,))
    keep = np.asarray(xla.kept(jnp.int32(seed), (*leading, outputs), rate)) / (1 - rate) if rate else 1.0
    args = (x, w, b) if with_bias else (x, w)

    def reference(x, w, b=0.0):
        return activations.apply(activation, x @ w + b, 0.1) * keep

    def hand(x, w, b=None):
        return kernels.linear_act(x, w, b, activation, 0.1, rate, jnp.int32(seed), implementation=implementation)

    with jax.default_matmul_precision("highest"):
        # The result is rounded once. The gradient sees y or (gelu) z rounded, is itself rounded, and so is the product with it.
        one = TOLERANCE[dtype.dtype.name]
        assert_matches_float64(hand, reference, args, one, of_gradients=3 * one)


def test_dropout_drops_that_part_and_keeps_the_mean():
    x = jnp.ones((400, 100))
    y = kernels.linear_act(x, jnp.eye(100), None, None, dropout_rate=0.3, dropout_seed=5)
    assert abs(float((y == 0).mean()) - 0.3) < 0.01  # four deviations of a share of 40,000 draws
    assert set(np.unique(np.asarray(y))) == {np.float32(0), np.float32(1 / 0.7)}
    other = kernels.linear_act(x, jnp.eye(100), None, None, dropout_rate=0.3, dropout_seed=6)
    assert (np.asarray(y) != np.asarray(other)).any()


@pytest.mark.parametrize("implementation", HAND)
def test_vmap_over_rows_and_over_weights(implementation):
    x, w = normal(0, (2, 3, 8)), normal(1, (2, 8, 5))
    loss = lambda i: lambda x, w: jnp.sum(jnp.square(
        kernels.linear_act(x, w, None, "tanh", dropout_rate=0.5, dropout_seed=3, implementation=i)
    ))  # fmt: skip
    for axes, weights in (((0, None), w[0]), ((0, 0), w)):
        with jax.default_matmul_precision("highest"):
            hand, expected = (jax.vmap(jax.grad(loss(i), (0, 1)), axes)(x, weights) for i in (implementation, "xla"))
        for h, e in zip(hand, expected, strict=True):
            np.testing.assert_allclose(h, e, rtol=1e-4, atol=1e-5)


def test_the_reference_can_be_differentiated_twice():
    """A gradient penalty is a gradient of a gradient."""
    x, w = normal(0, (3, 4)), normal(1, (4, 5))
    penalty = lambda w: jnp.sum(jnp.square(jax.grad(lambda x: jnp.sum(kernels.linear_act(x, w, None, "leaky_relu")))(x)))
    step = 1e-2 * normal(2, w.shape)
    change = (penalty(w + step) - penalty(w - step)) / 2
    np.testing.assert_allclose(jnp.sum(jax.grad(penalty)(w) * step), change, rtol=1e-3)  # a central difference


@pytest.mark.parametrize("implementation", ["xla", *HAND])
def test_an_empty_batch(implementation):
    assert kernels.linear_act(jnp.zeros((0, 4)), jnp.zeros((4, 3)), implementation=implementation).shape == (0, 3)


def test_bad_arguments_are_named():
    x, w = jnp.zeros((2, 4)), jnp.zeros((4, 3))
    with pytest.raises(ValueError, match=r"w: shape \(3, 4\) is not \(4, 4\)"):
        kernels.linear_act(x, w.T)
    with pytest.raises(TypeError, match="w: dtype bfloat16 is not that of x, float32"):
        kernels.linear_act(x, w.astype(jnp.bfloat16))
    with pytest.raises(ValueError, match=r"b: shape \(4,\)"):
        kernels.linear_act(x, w, jnp.zeros(4))
    with pytest.raises(ValueError, match="dropout_seed: needed"):
        kernels.linear_act(x, w, dropout_rate=0.5)
    with pytest.raises(ValueError, match="dropout_rate: 1"):
        kernels.linear_act(x, w, dropout_rate=1, dropout_seed=0)
    with pytest.raises(kernels.ImplementationError, match="positive negative_slope"):
        kernels.linear_act(x, w, activation="leaky_relu", negative_slope=0.0, implementation="interpret")


@pytest.mark.parametrize("rows", [2, 7, 32])
def test_few_rows_of_a_large_matrix(rows, monkeypatch):
    """On a CPU they are a convolution, which the program shows; here the matrix counts as large from 2,000 elements."""
    monkeypatch.setattr(xla, "LARGE", 2000)
    x, w, b = normal(rows, (rows, 61)), normal(rows + 1, (61, 43)), normal(rows + 2, (43,))
    product = lambda x, w, b: kernels.linear_act(x, w, b, "tanh", implementation="xla")
    assert "convolution" in jax.jit(product).lower(x, w, b).as_text()
    assert "convolution" not in jax.jit(product).lower(x, w[:, :20], b[:20]).as_text()
    reference = lambda x, w, b: jnp.tanh(x @ w + b)
    assert_matches_float64(product, reference, (x, w, b), TOLERANCE["float32"], of_gradients=TOLERANCE["float32"])
