"""Max pooling against torch: ceil mode, ties, NaN."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import kernels

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
