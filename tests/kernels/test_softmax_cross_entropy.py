"""Softmax cross-entropy against float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kernels
from tests.kernels.checking import DTYPES, HAND, TOLERANCE, assert_matches_float64, few, normal


def reference(logits, targets):
    return -jnp.sum(targets * jax.nn.log_softmax(logits), -1)


def smoothed(labels, classes, smoothing):
    return (1 - smoothing) * np.eye(classes)[labels] + smoothing / classes


@pytest.mark.parametrize("implementation", ["xla", *HAND])
@few
@given(
    leading=st.lists(st.integers(1, 9), max_size=2),
    classes=st.sampled_from([1, 2, 10, 33, 1000, 9000]),
    smoothing=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 99),
)
def test_class_numbers(implementation, leading, classes, smoothing, seed):
    dtype = DTYPES[seed % 3]
    logits = normal(seed, (*leading, classes), dtype, scale=4.0)
    labels = np.random.default_rng(seed).integers(0, classes, leading)
    hand = lambda x: kernels.softmax_cross_entropy(x, jnp.asarray(labels), smoothing, implementation=implementation)
    targets = smoothed(labels, classes, smoothing)
    # the loss is float32 whatever the logits are; their gradient is rounded to their type
    tolerance, wide = TOLERANCE[dtype.dtype.name], TOLERANCE["float32"]
    assert_matches_float64(hand, lambda x: reference(x, targets), (logits,), tolerance, of_float32=wide)


@pytest.mark.parametrize("implementation", ["xla", *HAND])
@pytest.mark.parametrize("classes", [10, 9000])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_large_logits_keep_their_differences(implementation, classes, smoothing, rng):
    """Of logits about 1e4, whose neighbours are 1e-3 apart, float32 holds the differences exactly."""
    logits = jnp.asarray(1e4 + rng.integers(-4000, 4000, (5, classes)) * 2.0**-10, jnp.float32)
    labels = rng.integers(0, classes, 5)
    hand = lambda x: kernels.softmax_cross_entropy(x, jnp.asarray(labels), smoothing, implementation=implementation)
    targets = smoothed(labels, classes, smoothing)
    assert_matches_float64(hand, lambda x: reference(x, targets), (logits,), TOLERANCE["float32"])
    exact = jax.grad(lambda x: jnp.sum(reference(x - 1e4, targets)))(logits)  # a float32 gradient of the small differences
    found = jax.grad(lambda x: jnp.sum(hand(x)))(logits)
    np.testing.assert_allclose(found, exact, rtol=2e-5, atol=1e-9)  # sums of up to 9000 terms


def test_class_probabilities():
    logits, raw = normal(0, (3, 4, 7)), np.random.default_rng(1).random((3, 4, 7)).astype(np.float32)
    targets = raw / raw.sum(-1, keepdims=True)
    fn = lambda x: kernels.softmax_cross_entropy(x, jnp.asarray(targets), 0.2)
    assert_matches_float64(fn, lambda x: reference(x, 0.8 * targets + 0.2 / 7), (logits,), 1e-5)


@pytest.mark.parametrize("implementation", ["xla", *HAND])
def test_an_unknown_class_is_nan_and_large_logits_are_not(implementation):
    logits = jnp.array([[1e4, 0.0, -1e4], [1e4, -jnp.inf, 0.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    loss = kernels.softmax_cross_entropy(logits, jnp.array([1, 0, 3, -1]), implementation=implementation)
    np.testing.assert_array_equal(loss, [1e4, 0.0, np.nan, np.nan])


@pytest.mark.parametrize("implementation", HAND)
def test_vmap_and_empty_batch(implementation):
    logits, labels = normal(0, (2, 3, 5)), jnp.array([[0, 1, 2], [4, 3, 2]])
    loss = lambda i: lambda x, y: jnp.sum(jnp.square(kernels.softmax_cross_entropy(x, y, 0.1, implementation=i)))
    found, expected = (jax.vmap(jax.grad(loss(i)))(logits, labels) for i in (implementation, "xla"))
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6)  # of up to 6: a few roundings in float32
    assert kernels.softmax_cross_entropy(logits[:0], labels[:0], implementation=implementation).shape == (0, 3)


def test_bad_arguments_are_named():
    logits = jnp.zeros((2, 3))
    with pytest.raises(ValueError, match=r"labels: shape \(3,\) is not \(2,\)"):
        kernels.softmax_cross_entropy(logits, jnp.zeros(3, int))
    with pytest.raises(ValueError, match=r"labels: shape \(2,\) is not \(2, 3\)"):
        kernels.softmax_cross_entropy(logits, jnp.zeros(2))
    with pytest.raises(ValueError, match="label_smoothing: 2 is not in"):
        kernels.softmax_cross_entropy(logits, jnp.zeros(2, int), 2)
    with pytest.raises(kernels.ImplementationError, match="takes class numbers"):
        kernels.softmax_cross_entropy(logits, logits, implementation="interpret")
