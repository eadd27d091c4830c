"""Local response normalization against float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kernels
from tests.kernels.checking import DTYPES, HAND, TOLERANCE, assert_matches_float64, few, normal


def reference(x, size, alpha, beta, k):
    """The formula, channel by channel."""
    channels = x.shape[-1]
    columns = []
    for c in range(channels):
        window = x[..., max(0, c - size // 2) : min(channels, c + (size - 1) // 2 + 1)]
        columns.append(x[..., c] / (k + alpha * jnp.sum(window**2, -1)) ** beta)
    return jnp.stack(columns, -1)


@pytest.mark.parametrize("implementation", ["xla", *HAND])
@few
@given(
    leading=st.lists(st.integers(1, 4), max_size=3),
    channels=st.integers(1, 20),
    size=st.integers(1, 6),
    beta=st.sampled_from([0.75, 0.5, 1.3]),
    seed=st.integers(0, 99),
)
def test_matches_float64(implementation, leading, channels, size, beta, seed):
    dtype = DTYPES[seed % 3]
    x = normal(seed, (*leading, channels), dtype, scale=3.0)
    hand = lambda x: kernels.local_response_norm(x, size, 0.1, beta, 2.0, implementation=implementation)
    # the sum that the gradient subtracts is of several terms as large as itself
    assert_matches_float64(hand, lambda x: reference(x, size, 0.1, beta, 2.0), (x,), TOLERANCE[dtype.dtype.name])


@pytest.mark.parametrize("implementation", HAND)
def test_vmap_and_empty_batch(implementation):
    x = normal(0, (2, 3, 4, 7))
    loss = lambda i: lambda x: jnp.sum(jnp.sin(kernels.local_response_norm(x, alpha=0.1, implementation=i)))
    np.testing.assert_allclose(
        jax.vmap(jax.grad(loss(implementation)))(x), jax.vmap(jax.grad(loss("xla")))(x), rtol=1e-5, atol=1e-6
    )
    assert kernels.local_response_norm(x[:0], implementation=implementation).shape == (0, 3, 4, 7)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="size: 0 is not at least 1"):
        kernels.local_response_norm(jnp.zeros((1, 4)), 0)
    with pytest.raises(TypeError, match="x: dtype int32"):
        kernels.local_response_norm(jnp.zeros((1, 4), int))
    with pytest.raises(kernels.ImplementationError, match="up to 4096 channels, and was given 5000"):
        kernels.local_response_norm(jnp.zeros((1, 5000)), implementation="interpret")
