"""Convolution: the forms for the CPU equal XLA's own, and can be differentiated twice."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kernels
from kernels.conv import cpu
from tests.kernels.checking import assert_close, assert_matches_float64, few, normal


@st.composite
def convolutions(draw):
    window = (draw(st.sampled_from([1, 2, 3, 5])), draw(st.sampled_from([1, 3])))
    strides = (draw(st.integers(1, 3)), draw(st.integers(1, 2)))
    pads = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in window)
    size = tuple(draw(st.integers(max(1, w - sum(p)), w + 9)) for w, p in zip(window, pads, strict=True))
    channels, features = draw(st.sampled_from([1, 2, 6, 16])), draw(st.sampled_from([1, 3, 16, 17]))
    return (draw(st.integers(1, 3)), *size, channels), (*window, channels, features), strides, pads, draw(st.integers(0, 99))


@few
@given(convolutions())
def test_output_and_gradients_equal_xlas_own(case):
    shape, w_shape, strides, pads, seed = case
    args = normal(seed, shape), normal(seed + 1, w_shape)
    # sums of up to 240 products, and in weight gradients of a few hundred, in another order
    assert_matches_float64(
        lambda x, w: cpu.conv(x, w, strides, pads), lambda x, w: cpu.lax_conv(x, w, strides, pads), args, 2e-5
    )


def test_nothing_is_flipped_and_run_as_a_loop(rng: np.random.Generator) -> None:
    """XLA swaps image and kernel where the kernel is larger, and flips one; XLA:CPU then has no library for it."""
    seen = {"image": 0, "gradient": 0, "weights": 0}
    while min(seen.values()) < 3:
        size, window = rng.integers(1, 9, 2).tolist(), rng.integers(1, 6, 2).tolist()
        strides, pads = tuple(rng.integers(1, 3, 2).tolist()), tuple(map(tuple, rng.integers(0, 4, (2, 2)).tolist()))
        rows, columns = ((n + sum(p) - k) // s + 1 for n, k, s, p in zip(size, window, strides, pads, strict=True))
        pixels, kernel, outputs = size[0] * size[1], window[0] * window[1], rows * columns
        swapped = {"image": kernel > pixels, "gradient": kernel > outputs, "weights": outputs > pixels}
        if min(rows, columns) < 1 or outputs <= 4 or not any(hit and seen[name] < 3 for name, hit in swapped.items()):
            continue
        for name, hit in swapped.items():
            seen[name] += hit
        conv = functools.partial(cpu.conv, strides=strides, pads=pads)
        shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((2, *size, 24), (*window, 24, 32), (2, rows, columns, 32))]
        compiled = jax.jit(lambda x, w, dy, conv=conv: (conv(x, w), jax.vjp(conv, x, w)[1](dy))).lower(*shapes).compile()
        assert "rhs_reversal" not in compiled.as_text(), (size, window, strides, pads)


@pytest.mark.parametrize("groups", [2, 5, 12, 32])  # 5: no divisor of eight; 12 and 32: several groups in a convolution
@pytest.mark.parametrize("strides", [(1, 1), (2, 1)])
def test_groups_equal_xlas_own(groups, strides):
    args = normal(0, (2, 7, 6, 2 * groups)), normal(1, (3, 3, 2, 3 * groups))
    pads = ((1, 1), (0, 1))
    expected = lambda x, w: cpu.lax_conv(x, w, strides, pads, groups)
    # sums of 18 products, and in weight gradients of up to 84, in another order
    assert_matches_float64(lambda x, w: cpu.grouped(x, w, strides, pads, groups), expected, args, 2e-5)


@pytest.mark.parametrize("shape", [(2, 20, 20, 16), (2, 6, 6, 1), (2, 6, 6, 4), (3, 9, 11, 2), (2, 2, 2, 16)])
@pytest.mark.parametrize("window", [1, 3])
def test_a_gradient_of_a_gradient(shape, window):
    """As a gradient penalty takes it, in each of the forms that the rules choose between."""
    x, w = normal(0, shape), normal(1, (window, window, shape[-1], 8))

    def penalty(form):
        fn = lambda w: jnp.sum(jnp.square(jax.grad(lambda x: jnp.sum(jnp.tanh(form(x, w, (1, 1), ((1, 1), (1, 1))))))(x)))
        return jax.jit(jax.grad(fn))(w)

    assert_close(penalty(cpu.conv), penalty(cpu.lax_conv), 2e-5, "penalty")


def test_padding_names_groups_and_dilation():
    x, w = normal(0, (2, 9, 8, 4)), normal(1, (3, 3, 2, 6))
    numbers = ("NHWC", "HWIO", "NHWC")
    for strides, padding, dilation in ((1, "SAME", 1), (2, "SAME", 2), (2, "VALID", 1), ((1, 2), ((0, 1), (2, 0)), (2, 1))):
        pairs = [(a, a) if isinstance(a, int) else a for a in (strides, dilation)]
        expected = jax.lax.conv_general_dilated(
            x, w, pairs[0], padding, rhs_dilation=pairs[1], dimension_numbers=numbers, feature_group_count=2
        )
        found = kernels.conv(x, w, strides, padding, groups=2, dilation=dilation)
        assert_close(found, expected, 1e-5, "groups")  # 18 products, on a CPU summed in another order
    expected = jax.lax.conv_general_dilated(x, w.repeat(2, 2), (2, 2), "SAME", dimension_numbers=numbers)
    assert_close(kernels.conv(x, w.repeat(2, 2), 2), expected, 1e-5, "without groups")


def test_an_empty_batch():
    assert kernels.conv(jnp.zeros((0, 8, 8, 3)), jnp.zeros((3, 3, 3, 4)), 2).shape == (0, 4, 4, 4)


def test_bad_arguments_are_named():
    x, w = jnp.zeros((1, 8, 8, 4)), jnp.zeros((3, 3, 4, 6))
    with pytest.raises(ValueError, match=r"x: shape \(8, 8, 4\) is not"):
        kernels.conv(x[0], w)
    with pytest.raises(ValueError, match="groups: 3 does not divide"):
        kernels.conv(x, w, groups=3)
    with pytest.raises(ValueError, match=r"w: shape .* with groups=2 takes 8 channels; x has 4"):
        kernels.conv(x, w, groups=2)
    with pytest.raises(TypeError, match="w: dtype bfloat16"):
        kernels.conv(x, w.astype(jnp.bfloat16))
    with pytest.raises(ValueError, match=r"w: its window, \(9, 9\), is larger"):
        kernels.conv(x, jnp.zeros((9, 9, 4, 6)), padding="VALID")
    with pytest.raises(ValueError, match=r"padding: .* negative"):
        kernels.conv(x, w, padding=((-1, 0), (0, 0)))
