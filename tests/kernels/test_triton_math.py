"""Functions inside the kernels, against float64 over all magnitudes of float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import triton
import triton.language as tl

import kernels
from kernels.linear_act import pallas
from kernels.runtime.launch import launch, like
from kernels.runtime.triton_math import activate, activation_gradient, tanh
from tests.kernels.checking import HAND


@triton.jit
def apply_kernel(x, y, FUNCTION: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at)
    if FUNCTION == "tanh":
        value = tanh(value)
    elif FUNCTION == "sigmoid":
        value = tl.sigmoid(value)
    elif FUNCTION == "tanh_gradient":
        value = activation_gradient(value, "tanh", 0.0)
    elif FUNCTION == "gelu":
        value = activate(value, "gelu", 0.0)
    else:
        value = activation_gradient(value, "gelu", 0.0)
    tl.store(y + at, value)


def sech_squared(x):
    e = np.exp(-2 * np.abs(x))
    return 4 * e / (1 + e) ** 2


def gelu_gradient(x):
    return scipy.special.ndtr(x) + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)


# Function in float64, and how much of its value float32 may be off: some roundings (6e-8 each) and, of exp, as many of them as
# its argument, up to 88, is large: those of the argument.
FUNCTIONS = {
    "tanh": (np.tanh, 3e-7),
    "tanh_gradient": (sech_squared, 1e-5),
    "sigmoid": (scipy.special.expit, 1e-5),
    "gelu": (lambda x: x * scipy.special.ndtr(x), 1e-5),
    "gelu_gradient": (gelu_gradient, 2e-5),
}
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1.2e-38, 3.4e38, -3.4e38, 0.625, -0.625], np.float32)


def every_magnitude(rng) -> np.ndarray:
    """4096 values: special ones, those of any magnitude, and those where the functions bend."""
    sign = rng.choice([-1.0, 1.0], 4096 - SPECIAL.size)
    exponent = np.concatenate([rng.uniform(-45, 38.5, 1500), rng.uniform(-4, 2, sign.size - 1500)])
    return np.concatenate([SPECIAL, (sign * 10**exponent).astype(np.float32)])


def assert_near(found, function: str, x: np.ndarray, slack: float = 1.0) -> None:
    exact, relative = FUNCTIONS[function]
    with np.errstate(all="ignore"):
        expected = exact(x.astype(np.float64))
    found = np.asarray(found, np.float64)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    tolerance = slack * relative * np.abs(expected) + 2e-37  # x, 14 at most there, times a density that float32 has not
    if function == "gelu_gradient":  # it is zero at -0.7518, as the difference of two numbers that are not
        tolerance += np.where((x > -2) & (x < 2), 2e-7, 0.0)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(found[~finite], expected[~finite])
    x, found, expected, tolerance = (a[finite] for a in (x, found, expected, tolerance))
    wrong = np.abs(found - expected) > tolerance
    assert not wrong.any(), (x[wrong][:5], found[wrong][:5], expected[wrong][:5])


@pytest.mark.parametrize("implementation", HAND)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_magnitude(function, implementation, rng):
    x = every_magnitude(rng)
    (y,) = launch(
        apply_kernel,
        jnp.asarray(x),
        outputs=[like(jnp.asarray(x))],
        grid=(4,),
        implementation=implementation,
        FUNCTION=function,
        BLOCK=1024,
    )
    slack = 1.0 if implementation == "interpret" else 3.0  # a GPU's division and exp are approximate, to 2 units each
    assert_near(y, function, x, slack)
    if function == "tanh":
        np.testing.assert_array_equal(np.signbit(y)[~np.isnan(x)], np.signbit(x)[~np.isnan(x)])


def test_every_magnitude_of_gelu_in_pallas(rng):
    x = every_magnitude(rng)
    assert_near(jax.jit(lambda x: pallas.activate(x, "gelu", 0.0))(x), "gelu", x)


@pytest.mark.parametrize("implementation", ["xla", *HAND])
@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_tiny_inputs_keep_their_digits_in_an_operator(implementation, activation, rng):
    x = np.zeros((64, 16), np.float32)
    x[:, 0] = 10 ** rng.uniform(-30, -3, 64) * rng.choice([-1, 1], 64)
    with jax.default_matmul_precision("highest"):
        y = kernels.linear_act(jnp.asarray(x), jnp.eye(16), None, activation, implementation=implementation)
    exact = FUNCTIONS[activation][0](x.astype(np.float64))
    np.testing.assert_allclose(y[:, 0], exact[:, 0], rtol=1e-6)  # a few roundings
