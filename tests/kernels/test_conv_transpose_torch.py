"""Transposed convolution against torch: strides, output padding, groups, dilation, forward and gradients in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import kernels

CASES = {
    "plain": ({}, (5, 4), (3, 2)),
    "upsampling": ({"stride": 2, "padding": 1}, (5, 6), (4, 4)),
    "output padding": ({"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2)}, (5, 4), (3, 5)),
    "output padding, divisible": ({"stride": 2, "output_padding": (0, 1)}, (3, 4), (4, 2)),
    "output padding of 1x1": ({"stride": 2, "padding": 1, "output_padding": 1}, (1, 1), (4, 3)),
    "groups": ({"stride": 2, "padding": 1, "groups": 2}, (4, 5), (3, 3)),
    "each channel alone": ({"stride": 2, "groups": 4}, (4, 5), (2, 2)),
    "dilated": ({"stride": (1, 2), "dilation": (2, 3), "padding": 2, "output_padding": (1, 0)}, (5, 4), (3, 2)),
    "dilated groups": ({"stride": 3, "dilation": 2, "groups": 2, "output_padding": 1}, (3, 2), (2, 3)),
    "gaps": ({"stride": 3}, (3, 4), (2, 1)),
}


@pytest.mark.parametrize("name", CASES)
def test_torch_gives_the_same(name: str, rng: np.random.Generator) -> None:
    options, size, window = CASES[name]
    groups = options.get("groups", 1)
    x, w = rng.standard_normal((2, *size, 4)), rng.standard_normal((*window, 4, 6 // groups if groups < 4 else 2))
    theirs = [torch.tensor(a, requires_grad=True) for a in (x.transpose(0, 3, 1, 2), w.transpose(2, 3, 0, 1))]
    expected = torch.nn.functional.conv_transpose2d(*theirs, **options)
    dy = rng.standard_normal(expected.shape)
    expected.backward(torch.tensor(dy))
    ours = {"strides" if key == "stride" else key: value for key, value in options.items()}
    with jax.enable_x64(True):
        y, pullback = jax.vjp(lambda x, w: kernels.conv_transpose(x, w, **ours), jnp.asarray(x), jnp.asarray(w))
        dx, dw = pullback(jnp.asarray(dy.transpose(0, 2, 3, 1)))
    # Sums of at most 36 products in float64.
    close = lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    close(y, expected.detach().numpy().transpose(0, 2, 3, 1))
    close(dx, theirs[0].grad.numpy().transpose(0, 2, 3, 1))
    close(dw, theirs[1].grad.numpy().transpose(2, 3, 0, 1))
