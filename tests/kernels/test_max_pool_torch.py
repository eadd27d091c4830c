"""Max pooling against torch: ceil mode, dilation, ties, NaN."""

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

CASES = [
    ((2, 7, 9, 3), 3, 2, 0, False),
    ((2, 8, 8, 3), 3, 2, 0, True),
    ((1, 7, 6, 2), 2, 2, 0, True),
    ((1, 6, 6, 2), 2, 3, 1, True),
    ((1, 9, 9, 2), 3, 2, 1, True),
    ((1, 5, 5, 2), 3, 1, 1, True),
]


@pytest.mark.parametrize(("shape", "window", "stride", "pad", "ceil_mode"), CASES)
def test_torch_gives_the_same(shape, window, stride, pad, ceil_mode, rng):
    values = rng.integers(0, 3, shape).astype(np.float32)
    values[0, 2, 2, 0] = values[0, 3, 2, 0] = np.nan
    theirs = torch.tensor(values.transpose(0, 3, 1, 2), requires_grad=True)
    expected = torch.nn.functional.max_pool2d(theirs, window, stride, pad, ceil_mode=ceil_mode)
    weights = np.arange(1, expected.numel() + 1, dtype=np.float32).reshape(expected.shape)
    (expected.nan_to_num(1) * torch.tensor(weights)).sum().backward()

    padding = ((pad, pad), (pad, pad))
    y, pullback = jax.vjp(lambda x: kernels.max_pool(x, window, stride, padding, ceil_mode), jnp.asarray(values))
    np.testing.assert_array_equal(y, expected.detach().numpy().transpose(0, 2, 3, 1))
    # nan_to_num passes no gradient where it replaced: none goes in there
    cotangent = np.where(np.isnan(y), 0, weights.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(pullback(jnp.asarray(cotangent))[0], theirs.grad.numpy().transpose(0, 2, 3, 1))


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


@settings(few, max_examples=15)
@given(
    size=pairs(1, 12),
    window=pairs(1, 4),
    stride=pairs(1, 4),
    dilation=pairs(1, 3),
    half=st.tuples(st.booleans(), st.booleans()),
    ceil_mode=st.booleans(),
    seed=st.integers(0, 999),
)
def test_dilated_windows(size, window, stride, dilation, half, ceil_mode, seed):
    spread = [(w - 1) * d + 1 for w, d in zip(window, dilation, strict=True)]
    pad = tuple(w // 2 if p else 0 for w, p in zip(window, half, strict=True))  # torch allows no more
    assume(all(n + 2 * p >= w for n, p, w in zip(size, pad, spread, strict=True)))
    # Where a window would step over the whole input torch gives minus infinity; here that is an error, tested below.
    assume(all(n >= d for n, d in zip(size, dilation, strict=True)))
    values = np.random.default_rng(seed).choice([-np.inf, -1.0, 0.0, 1.0], (2, *size, 3)).astype(np.float32)  # mostly ties
    theirs = torch.tensor(values.transpose(0, 3, 1, 2), requires_grad=True)
    expected = torch.nn.functional.max_pool2d(theirs, window, stride, pad, dilation, ceil_mode)
    weights = np.arange(1, expected.numel() + 1, dtype=np.float32).reshape(expected.shape)
    expected.backward(torch.tensor(weights))

    pads = tuple((p, p) for p in pad)
    y, pullback = jax.vjp(lambda x: kernels.max_pool(x, window, stride, pads, ceil_mode, dilation), jnp.asarray(values))
    np.testing.assert_array_equal(y, expected.detach().numpy().transpose(0, 2, 3, 1))
    dx = pullback(jnp.asarray(weights.transpose(0, 2, 3, 1)))[0]
    np.testing.assert_array_equal(dx, theirs.grad.numpy().transpose(0, 2, 3, 1))
