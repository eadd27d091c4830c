"""What the tests of the operators share: a comparison with float64, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import settings

# Each check of a hand-written kernel runs in the interpreter, and on a GPU where tests marked gpu are asked for; and, where a
# case takes seconds, its compiled code is executed too, in the long run of the suite.
INTERPRETED = [pytest.param("interpret", id="interpret"), pytest.param("triton", id="triton", marks=pytest.mark.gpu)]
HAND = [*INTERPRETED, pytest.param("ptx", id="ptx", marks=pytest.mark.slow)]
DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16]
# One rounding to the nearest, of float32 sums whose own error is 1e-5, relative to the largest magnitude.
TOLERANCE = {"float32": 1e-5, "bfloat16": 2**-8 + 1e-5, "float16": 2**-11 + 1e-5}
few = settings(max_examples=6, deadline=None, derandomize=True, database=None)


def normal(seed: int, shape: Sequence[int], dtype=jnp.float32, scale: float = 1.0, shift: float = 0.0) -> jax.Array:
    values = np.random.default_rng(seed).standard_normal(tuple(shape)) * scale + shift
    return jnp.asarray(values, jnp.float32).astype(dtype)


def assert_close(actual, expected, tolerance: float, what: str) -> None:
    """Every element within `tolerance` times the largest magnitude expected."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, what
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected), err_msg=what)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(actual[~finite], expected[~finite], err_msg=what)
    scale = max(1.0, np.abs(expected[finite]).max(initial=0.0))
    np.testing.assert_allclose(actual[finite], expected[finite], rtol=0, atol=tolerance * scale, err_msg=what)


def _with_gradients(fn: Callable, args, cotangents):
    outputs, pullback = jax.vjp(fn, *args)
    return outputs, pullback(cotangents)


def assert_matches_float64(
    fn: Callable,
    reference: Callable,
    args: Sequence[jax.Array],
    tolerance: float,
    seed: int = 0,
    *,
    of_gradients: float | None = None,
    of_float32: float | None = None,
) -> None:
    """`fn` of `args` and its gradients for random cotangents are those that `reference` has in float64.

    `fn` runs by itself too: some operators launch another kernel, or none, where they are differentiated. Tolerances other
    than `tolerance` are for gradients, and for what is float32 whatever the arguments are.
    """
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(fn, *args)
    cotangents = jax.tree.map(lambda o: jnp.asarray(rng.standard_normal(o.shape), jnp.float32).astype(o.dtype), shapes)
    outputs, gradients = jax.jit(lambda a, c: _with_gradients(fn, a, c))(tuple(args), cotangents)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: np.asarray(a, np.float64), (tuple(args), cotangents))
        exact, exact_gradients = jax.device_get(jax.jit(lambda a, c: _with_gradients(reference, a, c))(*wide))
    alone = jax.jit(fn)(*args)

    def allowed(a: jax.Array, otherwise: float) -> float:
        return of_float32 if of_float32 is not None and a.dtype == jnp.float32 else otherwise

    for what, results in (("result", outputs), ("result without gradients", alone)):
        for i, (a, e) in enumerate(zip(jax.tree.leaves(results), jax.tree.leaves(exact), strict=True)):
            assert_close(a, e, allowed(a, tolerance), f"{what} {i}")
    for i, (a, e) in enumerate(zip(jax.tree.leaves(gradients), jax.tree.leaves(exact_gradients), strict=True)):
        assert_close(a, e, allowed(a, tolerance if of_gradients is None else of_gradients), f"gradient {i}")
