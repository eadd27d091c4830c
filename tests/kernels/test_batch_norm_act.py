"""Batch normalization, residual and activation against float64."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
from kernels.runtime import activations
from tests.kernels.checking import DTYPES, HAND, TOLERANCE, assert_close, assert_matches_float64, few, normal


def reference(x, scale, bias, residual=None, activation="relu", epsilon=1e-5):
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axes)
    var = jnp.mean(jnp.square(x - mean), axes)
    z = (x - mean) / jnp.sqrt(var + epsilon) * scale + bias
    return activations.apply(activation, z if residual is None else z + residual), mean, var


@pytest.mark.parametrize("implementation", ["xla", *HAND])
@few
@given(
    leading=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    channels=st.sampled_from([1, 5, 8, 24, 40]),
    activation=st.sampled_from(activations.NAMES),
    with_residual=st.booleans(),
    seed=st.integers(0, 99),
)
def test_matches_float64(implementation, leading, channels, activation, with_residual, seed):
    dtype = DTYPES[seed % 3]
    if np.prod(leading) < 8:  # of a few values the deviation may be as good as zero, and then nothing is well conditioned
        leading = [8, *leading[1:]]
    x, residual = (normal(seed + i, (*leading, channels), dtype, scale=2.0, shift=1.0) for i in range(2))
    scale, bias = normal(seed + 2, (channels,)), normal(seed + 3, (channels,))
    args = (x, scale, bias, residual) if with_residual else (x, scale, bias)
    hand = lambda *a: kernels.batch_norm_act(*a, activation=activation, implementation=implementation)
    # Near a kink rounding may fall on either side; a smooth activation everywhere and relu away from zero must agree.
    # The kernel rounds its results once. XLA's code rounds z too before it adds a residual. Statistics and gradients of scale
    # and bias are float32; with XLA's rounded z these gradients are as good as that is.
    roundings = 2 if implementation == "xla" and with_residual else 1
    wide = roundings * TOLERANCE[dtype.dtype.name] if roundings > 1 else TOLERANCE["float32"]
    tolerance = roundings * TOLERANCE[dtype.dtype.name]
    assert_matches_float64(hand, lambda *a: reference(*a, activation=activation), args, tolerance, of_float32=wide)


@pytest.mark.parametrize("implementation", ["xla", *HAND])
def test_the_variance_of_a_large_mean_does_not_cancel(implementation):
    """At mean 1e3 and deviation 1e-2, E[x**2] - E[x]**2 in float32 would be off by a factor of hundreds."""
    x = normal(0, (512, 8), scale=1e-2, shift=1e3)
    _, mean, var = kernels.batch_norm_act(x, jnp.ones(8), jnp.zeros(8), implementation=implementation)
    exact = np.asarray(x, np.float64)
    # The mean is rounded once (6e-8); the variance is a sum of 512 squares of differences that are exact, far within 1e-4.
    np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-7)
    np.testing.assert_allclose(var, exact.var(0), rtol=1e-4)


@pytest.mark.parametrize("implementation", ["xla", *HAND])
def test_evaluation_normalizes_with_what_it_is_given(implementation):
    x, residual = normal(0, (3, 5, 8)), normal(1, (3, 5, 8))
    scale, bias, mean, var = normal(2, (8,)), normal(3, (8,)), normal(4, (8,)), jnp.square(normal(5, (8,)))
    y, same_mean, same_var = kernels.batch_norm_act(x, scale, bias, residual, mean=mean, var=var, implementation=implementation)
    assert same_mean is mean
    assert same_var is var
    exact = [np.asarray(a, np.float64) for a in (x, mean, var, scale, bias, residual)]
    expected = (exact[0] - exact[1]) / np.sqrt(exact[2] + 1e-5) * exact[3] + exact[4] + exact[5]
    assert_close(y, np.maximum(expected, 0), 1e-5, "y")


@pytest.mark.parametrize("implementation", HAND)
def test_vmap(implementation):
    x, scale, bias = normal(0, (2, 9, 8)), normal(1, (8,)), normal(2, (8,))
    loss = lambda i: lambda x: jnp.sum(jnp.square(kernels.batch_norm_act(x, scale, bias, implementation=i)[0]))
    expected = jnp.stack([jax.grad(loss("xla"))(part) for part in x])
    # Both in float32; sums of nine products of the order of one, a few roundings apart.
    np.testing.assert_allclose(jax.vmap(jax.grad(loss(implementation)))(x), expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("implementation", ["xla", *HAND])
def test_an_empty_batch(implementation):
    y, mean, var = kernels.batch_norm_act(jnp.zeros((0, 4)), jnp.ones(4), jnp.zeros(4), implementation=implementation)
    assert y.shape == (0, 4)
    np.testing.assert_array_equal(mean, np.zeros(4))
    np.testing.assert_array_equal(var, np.zeros(4))


def test_a_batch_of_more_values_than_an_int32_counts():
    """That of ResNet-50 on 1,024 devices with 256 images each."""
    x, channel = jax.ShapeDtypeStruct((2**18, 112, 112, 64), jnp.float32), jax.ShapeDtypeStruct((64,), jnp.float32)
    loss = lambda *given: kernels.batch_norm_act(*given, implementation="xla")[0].sum()
    gradients = jax.eval_shape(jax.grad(loss, (0, 1, 2)), x, channel, channel)
    assert [g.shape for g in gradients] == [x.shape, (64,), (64,)]


def test_bad_arguments_are_named():
    x, ones = jnp.zeros((2, 4)), jnp.ones(4)
    with pytest.raises(ValueError, match=r"scale: shape \(3,\) is not \(4,\)"):
        kernels.batch_norm_act(x, jnp.ones(3), ones)
    with pytest.raises(ValueError, match=r"residual: shape \(4,\)"):
        kernels.batch_norm_act(x, ones, ones, ones)
    with pytest.raises(ValueError, match="activation: 'swish'"):
        kernels.batch_norm_act(x, ones, ones, activation="swish")
    with pytest.raises(ValueError, match=r"running_var: shape \(3,\) is not \(4,\)"):
        kernels.batch_norm_act_running(x, ones, ones, ones, jnp.ones(3))
    with pytest.raises(ValueError, match="mean, var: give both"):
        kernels.batch_norm_act(x, ones, ones, mean=ones)


@pytest.mark.parametrize("implementation", ["xla", *HAND])
@settings(few, max_examples=3)
@given(
    rows=st.integers(2, 40),
    channels=st.sampled_from([1, 5, 40]),
    momentum=st.sampled_from([0.1, 0.3, 1.0]),
    with_residual=st.booleans(),
    seed=st.integers(0, 99),
)
def test_running_statistics_move_as_torchs_do(implementation, rows, channels, momentum, with_residual, seed):
    dtype = DTYPES[seed % 3]
    x, residual = (normal(seed + i, (rows, channels), dtype, shift=1.0) for i in range(2))
    scale, bias, mean, spread = (normal(seed + i, (channels,)) for i in range(2, 6))
    running = (mean, jnp.square(spread))
    others = (scale, bias, residual) if with_residual else (scale, bias)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(x, *others, running=None):
        options = {"activation": "tanh", "implementation": implementation}
        if running is None:
            y, *statistics = kernels.batch_norm_act(x, *others, **options)
        else:
            norm, residual = others[:2], others[2:]
            y, *statistics = kernels.batch_norm_act_running(x, *norm, *running, *residual, momentum=momentum, **options)
        total = jnp.sum(jnp.sin(y.astype(jnp.float32)))
        return total + (0 if running is None else sum(map(jnp.sum, statistics))), (y, statistics)

    (_, (y, moved)), gradient = loss(x, *others, running=running)
    exact = np.asarray(x, np.float64)
    for old, new, batch in zip(running, moved, (exact.mean(0), exact.var(0, ddof=1)), strict=True):
        assert_close(new, (1 - momentum) * np.asarray(old, np.float64) + momentum * batch, 1e-5, "running")
    # the rest is what it is without them, and they have no gradient: the same kernel, so bit for bit
    (_, (plain, _)), expected = loss(x, *others)
    np.testing.assert_array_equal(y, plain)
    np.testing.assert_array_equal(gradient, expected)
