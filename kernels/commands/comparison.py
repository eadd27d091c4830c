"""A case's results and gradients under one implementation, compared with float64."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernels.commands.cases import Case, both_ways, cotangents_of
from kernels.commands.dtypes import ROUNDING
from kernels.runtime import devices


class WrongError(Exception):
    """A result is not what it must be; the message says which and by how much."""


def results(case: Case, arguments: Any, implementation: str | None) -> list[jax.Array]:
    """All results and, where the case has them, the gradients of the arguments for random gradients of the results."""
    fn = lambda arguments: case.call(arguments, implementation)
    if not case.backward:
        return jax.tree.leaves(jax.jit(fn)(arguments))
    cotangents = cotangents_of(lambda arguments: case.call(arguments, "xla"), arguments)
    alone = jax.jit(fn)(arguments)  # some operators launch another kernel, or none, where they are differentiated
    return jax.tree.leaves((alone, jax.jit(both_ways(fn))(arguments, cotangents)))


def exact(case: Case, arguments: Any) -> list[np.ndarray]:
    """`results` of plain JAX in float64, on the CPU."""
    with jax.default_device(jax.devices("cpu")[0]), devices.target("cpu"), jax.enable_x64(True):
        fn = lambda arguments: case.call(arguments, "xla")
        wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), arguments)
        if not case.backward:
            return [np.asarray(a) for a in jax.tree.leaves(jax.jit(fn)(wide))]
        # The cotangents that `results` draws, rounded as there, in the dtypes of the results here.
        wide_cotangents = jax.tree.map(
            lambda a, o: jnp.asarray(np.asarray(a, np.float64), o.dtype), cotangents_of(fn, arguments), jax.eval_shape(fn, wide)
        )
        return [np.asarray(a) for a in jax.tree.leaves((jax.jit(fn)(wide), jax.jit(both_ways(fn))(wide, wide_cotangents)))]


def worst_error(case: Any, dtype: str, found: list[Any], expected: list[Any], factor: float = 1) -> float:
    """The largest difference of any result, relative to the largest element of that result (or 1 where it is less).

    Args:
      case: its `roundings` in `dtype`, times `factor`, are the tolerance.

    Raises:
      WrongError: it is more than the case's tolerance, or a NaN or an infinity is where none belongs.
    """
    if len(found) != len(expected):
        raise WrongError(f"{len(found)} results, {len(expected)} are expected")
    worst, tolerance = 0.0, factor * case.roundings * ROUNDING[dtype]
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if a.shape != b.shape:
            raise WrongError(f"result {i}: shape {a.shape}, {b.shape} is expected")
        finite = np.isfinite(b)
        if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
            raise WrongError(f"result {i}: NaN or infinity where float64 has none, or none where it has one")
        if finite.any():
            error = float(np.abs(a[finite] - b[finite]).max() / max(1.0, np.abs(b[finite]).max()))
            worst = max(worst, error)
            if error > tolerance:
                raise WrongError(f"result {i}: off by {error:.1e} of its largest element, {tolerance:.1e} is allowed")
    return worst
