"""Transposed convolution: the forms give the same sums, those of the definition."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
from kernels.conv_transpose import xla
from tests.kernels.checking import few


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [(1, 4, 1, 0), (4, 4, 2, 1), (5, 4, 2, 1), (3, 6, 3, 0), (3, 6, 2, 2), (7, 2, 2, 0)],
)
def test_forms_of_the_transposed_convolution_are_the_same_sum(
    size: int, kernel: int, stride: int, padding: int, rng: np.random.Generator
) -> None:
    """Against the definition, output position by output position, in float64; gradients between the forms."""
    x, w = rng.standard_normal((2, size, size, 3)), rng.standard_normal((kernel, kernel, 3, 5))
    full = np.zeros((2, (size - 1) * stride + kernel, (size - 1) * stride + kernel, 5))
    for i in range(size):
        for j in range(size):
            patch = np.einsum("nc,abco->nabo", x[:, i, j], w)
            full[:, i * stride : i * stride + kernel, j * stride : j * stride + kernel] += patch
    expected = full[:, padding : full.shape[1] - padding, padding : full.shape[2] - padding]
    forms = ["dilated", "subpixel"] + (["matmul"] if size == 1 else [])
    gradients = []
    with jax.enable_x64(True):
        for form in forms:
            # Sums of at most 108 products in float64.
            np.testing.assert_allclose(
                kernels.conv_transpose(x, w, stride, padding, form=form), expected, rtol=1e-12, atol=1e-12
            )
            weigh = lambda x, w, form=form: (jnp.sin(kernels.conv_transpose(x, w, stride, padding, form=form))).sum()
            gradients.append(jax.grad(weigh, (0, 1))(jnp.asarray(x), jnp.asarray(w)))
        for other in gradients[1:]:
            for a, b in zip(gradients[0], other, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@settings(few, max_examples=12)
@given(
    padding=st.sampled_from(["SAME", "VALID", "same"]),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    window=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    strides=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    dilation=st.sampled_from([(1, 1), (1, 1), (2, 1), (3, 2)]),
    seed=st.integers(0, 99),
)
def test_same_and_valid_are_those_of_lax(padding, size, window, strides, dilation, seed) -> None:
    """Value and gradients of every form that fits, for windows smaller and larger than the strides."""
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((2, *size, 3)), rng.standard_normal((*window, 3, 2))

    def lax(x, w):
        return jax.lax.conv_transpose(
            x, w[::-1, ::-1], strides, padding.upper(), rhs_dilation=dilation, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    with jax.enable_x64(True):
        y = jax.eval_shape(lax, x, w)
        dy = rng.standard_normal(y.shape)
        both = lambda fn: jax.jit(lambda x, w, dy: (lambda y, pullback: (y, *pullback(dy)))(*jax.vjp(fn, x, w)))(x, w, dy)
        expected = both(lax)
        if padding.upper() == "SAME":
            assert y.shape[1:3] == tuple(n * s for n, s in zip(size, strides, strict=True))
        for form in [name for name, fits in xla.forms(x.shape, w.shape, strides, 1, dilation).items() if fits]:
            ours = lambda x, w, form=form: kernels.conv_transpose(x, w, strides, padding, dilation=dilation, form=form)
            # Sums of at most 150 products in float64.
            for a, b in zip(both(ours), expected, strict=True):
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("platform", ["cpu", "nvidia-h200"])
def test_forward_mode_equals_reverse_mode(platform: str, rng: np.random.Generator) -> None:
    """Of the form that each device gets by itself."""
    with jax.enable_x64(True), kernels.target(platform):
        x, w = jnp.asarray(rng.standard_normal((1, 3, 2, 2))), jnp.asarray(rng.standard_normal((4, 2, 2, 3)))
        fn = lambda x, w: kernels.conv_transpose(x, w, 2, ((0, 1), (1, 0)), 1)
        for forward, reverse in zip(jax.jacfwd(fn, (0, 1))(x, w), jax.jacrev(fn, (0, 1))(x, w), strict=True):
            np.testing.assert_allclose(forward, reverse, rtol=0, atol=1e-12)  # float64 sums in another order


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"form": "subpixel"}, "form: 'subpixel' does not fit .* dilated do"),
        ({"form": "fast"}, "form: 'fast' does not fit"),
        ({"padding": -1}, 'padding: -1 is not "SAME", "VALID", an int'),
        ({"padding": "FULL"}, "padding: 'FULL' is not \"SAME\""),
        ({"padding": 6}, "padding: 6 leaves nothing of the result"),
        ({"output_padding": 2}, r"output_padding: 2 is not less than strides=\(2, 2\)"),
        ({"groups": 3}, "groups: 3 does not divide the channels of x, 4"),
        ({"strides": 0}, "strides: 0 is not"),
        ({"w": jnp.ones((3, 3, 2, 1))}, r"w: shape \(3, 3, 2, 1\) takes 2 channels; x has 4"),
        ({"w": jnp.ones((3, 3, 4))}, "w: shape .* is not"),
        ({"implementation": "triton"}, "conv_transpose has no 'triton'"),
    ],
)
def test_bad_arguments(arguments, message) -> None:
    good = {"x": jnp.ones((1, 4, 4, 4)), "w": jnp.ones((3, 3, 4, 1)), "strides": 2}
    with pytest.raises(ValueError, match=message):
        kernels.conv_transpose(**(good | arguments))
    with pytest.raises(TypeError, match="w: dtype bfloat16 is not that of x, float32"):
        kernels.conv_transpose(**(good | {"w": good["w"].astype(jnp.bfloat16)}))
