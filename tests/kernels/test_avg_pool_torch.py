"""Average pooling against torch: ceil mode, what counts of the padding, odd sizes, gradients; and its errors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import kernels
from tests.kernels.checking import few


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


@settings(few, max_examples=15)
@given(
    size=pairs(1, 9),
    window=pairs(1, 5),
    stride=pairs(1, 4),
    half=st.tuples(st.booleans(), st.booleans()),
    ceil_mode=st.booleans(),
    count_include_pad=st.booleans(),
    seed=st.integers(0, 999),
)
def test_torch_gives_the_same(size, window, stride, half, ceil_mode, count_include_pad, seed):
    pad = tuple(w // 2 if p else 0 for w, p in zip(window, half, strict=True))  # torch allows no more
    assume(all(n + 2 * p >= w for n, p, w in zip(size, pad, window, strict=True)))
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, *size, 3))
    theirs = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    expected = torch.nn.functional.avg_pool2d(theirs, window, stride, pad, ceil_mode, count_include_pad)
    dy = rng.standard_normal(expected.shape)
    expected.backward(torch.tensor(dy))
    pads = tuple((p, p) for p in pad)
    with jax.enable_x64(True):
        pool = lambda x: kernels.avg_pool(x, window, stride, pads, ceil_mode, count_include_pad)
        y, pullback = jax.vjp(pool, jnp.asarray(x))
        dx = pullback(jnp.asarray(dy.transpose(0, 2, 3, 1)))[0]
    # Means of at most 25 values in float64.
    np.testing.assert_allclose(y, expected.detach().numpy().transpose(0, 2, 3, 1), rtol=0, atol=1e-13)
    np.testing.assert_allclose(dx, theirs.grad.numpy().transpose(0, 2, 3, 1), rtol=0, atol=1e-12)


def test_same_without_the_padding_is_the_mean_of_what_is_there():
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    y = kernels.avg_pool(x, 2, 2, "SAME", count_include_pad=False)
    np.testing.assert_array_equal(y[0, :, :, 0], [[2, 3.5], [6.5, 8]])


def test_low_precision_adds_up_in_float32(rng):
    x = jnp.asarray(rng.uniform(1, 2, (1, 20, 20, 2)), jnp.bfloat16)
    y = kernels.avg_pool(x, 20)
    assert y.dtype == jnp.bfloat16
    # One rounding of the mean to 8 bits; sums in bfloat16 would stop growing at 512.
    np.testing.assert_allclose(y[0, 0, 0].astype(np.float32), np.asarray(x, np.float32).mean((0, 1, 2)), rtol=2**-8)


def test_forward_mode_and_an_empty_batch(rng):
    x = jnp.asarray(rng.standard_normal((1, 5, 4, 2)), jnp.float32)
    pool = lambda x: kernels.avg_pool(x, 3, 2, ((1, 1), (1, 0)), True, False)
    np.testing.assert_allclose(jax.jvp(pool, (x,), (x,))[1], pool(x), rtol=1e-6)  # it is linear
    assert pool(x[:0]).shape == (0, *pool(x).shape[1:])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": jnp.ones((4, 4))}, ValueError, "x: shape"),
        ({"x": jnp.ones((1, 4, 4, 1), jnp.int32)}, TypeError, "x: dtype int32"),
        ({"window": 0}, ValueError, "window: 0 is not"),
        ({"window": 5}, ValueError, r"window: \(5, 5\) is larger"),
        ({"padding": ((2, 0), (0, 0))}, ValueError, r"padding: .* is not less than window=\(2, 2\)"),
        ({"implementation": "triton"}, kernels.ImplementationError, "avg_pool has no 'triton'; it has xla"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        kernels.avg_pool(**({"x": jnp.ones((1, 4, 4, 1)), "window": 2} | arguments))
