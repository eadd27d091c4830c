"""Max pooling: every form gives the same maxima and sends the gradient to the same elements."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kernels
from kernels.max_pool import xla
from tests.kernels.checking import DTYPES, HAND, few


@st.composite
def pools(draw):
    window = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    strides = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    pads = tuple((draw(st.integers(0, w - 1)), draw(st.integers(0, w - 1))) for w in window)
    size = tuple(draw(st.integers(w, w + 6)) for w in window)
    shape = (draw(st.integers(1, 3)), *size, draw(st.integers(1, 5)))
    return shape, window, strides, pads, draw(st.booleans()), draw(st.integers(0, 999))


def tied(shape, seed, dtype=jnp.float32):
    """Few different values, so that most windows hold ties, some all of minus infinity."""
    return jnp.asarray(np.random.default_rng(seed).choice([-np.inf, -1.0, 0.0, 0.0, 1.0, 2.0], shape), dtype)


def output_and_gradient(fn, x):
    @jax.jit
    def both(x):
        y, pullback = jax.vjp(fn, x)
        dy = np.random.default_rng(1).integers(-4, 5, y.shape)  # small integers: sums of them are exact in every type
        return y, pullback(jnp.asarray(dy, y.dtype))[0]

    return [np.asarray(a, np.float32) for a in both(x)]


@few
@given(pools())
def test_the_cpu_form_equals_xlas_own(case):
    shape, window, strides, pads, _, seed = case
    # Where all of a window is minus infinity XLA may give the gradient to the padding and so to nothing; finite here.
    x = jnp.maximum(tied(shape, seed), -2.0)
    y, dx = output_and_gradient(lambda x: xla.by_position(x, window, strides, pads), x)
    expected_y, expected_dx = output_and_gradient(lambda x: xla.reduce_window(x, window, strides, pads), x)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_array_equal(dx, expected_dx)


@pytest.mark.parametrize("implementation", HAND)
@few
@given(pools())
def test_the_kernel_equals_the_reference(implementation, case):
    shape, window, strides, pads, ceil_mode, seed = case
    x = tied(shape, seed, DTYPES[seed % 3])
    hand = lambda x: kernels.max_pool(x, window, strides, pads, ceil_mode, implementation=implementation)
    y, dx = output_and_gradient(hand, x)
    with kernels.target("cpu"):
        expected_y, expected_dx = output_and_gradient(
            lambda x: kernels.max_pool(x, window, strides, pads, ceil_mode, implementation="xla"), x
        )
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_array_equal(dx, expected_dx)


@pytest.mark.parametrize("implementation", ["xla", *HAND])
def test_a_nan_wins(implementation):
    x = jnp.zeros((1, 4, 4, 1)).at[0, 1, 1, 0].set(jnp.nan)
    y = kernels.max_pool(x, 2, implementation=implementation)
    np.testing.assert_array_equal(np.isnan(y[0, :, :, 0]), [[True, False], [False, False]])


@pytest.mark.parametrize("implementation", HAND)
def test_vmap_scan_and_remat(implementation):
    x = jax.random.normal(jax.random.key(0), (3, 2, 5, 7, 2))
    loss = lambda i: lambda x: jnp.sum(jnp.square(kernels.max_pool(x, 3, 2, "SAME", implementation=i)))
    expected = jnp.stack([jax.grad(loss("xla"))(part) for part in x])
    np.testing.assert_array_equal(jax.jit(jax.vmap(jax.grad(loss(implementation))))(x), expected)
    scanned = jax.lax.scan(lambda carry, part: (carry, jax.grad(jax.checkpoint(loss(implementation)))(part)), 0.0, x)[1]
    np.testing.assert_array_equal(scanned, expected)


@pytest.mark.parametrize("implementation", ["xla", *HAND])
def test_an_empty_batch(implementation):
    x = jnp.zeros((0, 4, 4, 3))
    fn = lambda x: kernels.max_pool(x, 2, implementation=implementation)
    assert fn(x).shape == (0, 2, 2, 3)
    assert jax.grad(lambda x: fn(x).sum())(x).shape == x.shape


def test_bad_arguments_are_named():
    x = jnp.zeros((1, 4, 4, 1))
    with pytest.raises(ValueError, match=r"x: shape \(4, 4, 1\) is not \[batch, height, width, channels\]"):
        kernels.max_pool(x[0], 2)
    with pytest.raises(TypeError, match="x: dtype int32"):
        kernels.max_pool(x.astype(int), 2)
    with pytest.raises(ValueError, match="window: 0 is not"):
        kernels.max_pool(x, 0)
    with pytest.raises(ValueError, match=r"strides: \(1, 2, 3\)"):
        kernels.max_pool(x, 2, (1, 2, 3))
    with pytest.raises(ValueError, match="padding: 'FULL'"):
        kernels.max_pool(x, 2, padding="FULL")
    with pytest.raises(ValueError, match=r"padding: .* is not less than window"):
        kernels.max_pool(x, 2, padding=((2, 0), (0, 0)))
    with pytest.raises(ValueError, match=r"window: \(5, 5\) is larger than x"):
        kernels.max_pool(x, 5)


@pytest.mark.parametrize("platform", ["cpu", "nvidia-h200"])
def test_dilated_forward_mode_and_reverse_mode_agree(platform, rng):
    x = jnp.asarray(rng.permutation(7 * 6).reshape(1, 7, 6, 1), jnp.float32)
    with kernels.target(platform):
        pool = lambda x: kernels.max_pool(x, (3, 2), (2, 1), ((1, 2), (0, 1)), dilation=(2, 3), implementation="xla")
        np.testing.assert_array_equal(pool(x), xla.reduce_window(x, (3, 2), (2, 1), ((1, 2), (0, 1)), (2, 3)))
        np.testing.assert_array_equal(jax.jacfwd(pool)(x), jax.jacrev(pool)(x))
        assert jax.jacfwd(pool)(x).sum() == pool(x).size  # each maximum moves as one element


def test_more_positions_than_a_byte_has(rng):
    x = jnp.asarray(rng.permutation(35 * 34).reshape(1, 35, 34, 1), jnp.float32)
    pool = lambda x: kernels.max_pool(x, 17, 1, dilation=2)
    y, dx = output_and_gradient(pool, x)
    np.testing.assert_array_equal(y, xla.reduce_window(x, (17, 17), (1, 1), ((0, 0), (0, 0)), (2, 2)))
    assert set(x[dx != 0].tolist()) <= set(y.ravel().tolist())


def test_what_dilation_does_not_take():
    x = jnp.zeros((1, 5, 5, 1))
    with pytest.raises(kernels.ImplementationError, match=r"it takes no dilation, and was given \(2, 2\)"):
        kernels.max_pool(x, 2, dilation=2, implementation="interpret")
    with pytest.raises(ValueError, match="dilation: 0 is not"):
        kernels.max_pool(x, 2, dilation=0)
    with pytest.raises(ValueError, match=r"window: \(7, 7\) is larger"):
        kernels.max_pool(x, 3, dilation=3)
    with pytest.raises(ValueError, match="a window steps over all of"):
        kernels.max_pool(x[:, :1, :1], 2, 1, ((1, 1), (1, 1)), dilation=2)
