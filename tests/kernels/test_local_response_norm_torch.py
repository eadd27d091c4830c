"""Local response normalization against torch's definition."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import kernels


@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_alpha_over_size_is_torchs_definition(size, rng):
    x = rng.standard_normal((2, 5, 4, 9)).astype(np.float32)
    expected = torch.nn.functional.local_response_norm(torch.tensor(x).permute(0, 3, 1, 2), size, 0.3, 0.75, 1.0)
    y = kernels.local_response_norm(jnp.asarray(x), size, 0.3 / size, 0.75, 1.0)
    np.testing.assert_allclose(y, expected.permute(0, 2, 3, 1), rtol=1e-5, atol=1e-6)  # float32, sums in another order
