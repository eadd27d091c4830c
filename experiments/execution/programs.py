"""The two programs of a case: its operator with the kernels, and plain JAX in float64."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.execution.case import Case
from kernels.commands.cases import both_ways, cotangents_of
from kernels.runtime import devices

QUICK: dict[str, Any] = {"xla_backend_optimization_level": 0}  # they run once: compiling is what takes the time
Arrays = list[np.ndarray]


def results(case: Case, arguments: Any) -> Arrays:
    """What the operator returns, in the interpreter or what has taken its place: alone, and again where it is differentiated,
    which may launch other kernels, with the gradients of the arguments."""
    fn = lambda arguments: case.what.call(arguments, "interpret")
    alone = jax.jit(fn, compiler_options=QUICK)(arguments)
    if not case.what.backward:
        return _arrays(alone)
    both = jax.jit(both_ways(fn), compiler_options=QUICK)(arguments, _cotangents(case, arguments))
    return _arrays((alone, both))


def exact(case: Case, arguments: Any) -> Arrays:
    """The same of plain JAX, in float64 where that is possible."""
    drawn = _cotangents(case, arguments) if case.what.backward else None
    with _reference(case):
        program, needed = _compiled(case)
        given = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, case.reference)), arguments)
        if drawn is None:
            return _arrays(program(given))
        cotangents = jax.tree.map(lambda a, o: jnp.asarray(np.asarray(a, o.dtype)), drawn, needed)
        values, gradients = program(given, cotangents)
        return _arrays((values, values) if case.kinked else (values, (values, gradients)))


# Of the last case: its dtypes follow each other, and share the program.
_last: dict[str, tuple[Any, Any]] = {}


def _compiled(case: Case) -> tuple[Any, Any]:
    """The compiled reference, and the shapes of its results."""
    if case.digest not in _last:
        fn = lambda arguments: case.what.call(arguments, "xla")
        given = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, case.reference), case.draw("float32"))
        results = jax.eval_shape(fn, given)
        lowered = jax.jit(both_ways(fn)).lower(given, results) if case.what.backward else jax.jit(fn).lower(given)
        _last.clear()
        _last[case.digest] = lowered.compile(compiler_options=QUICK), results
    return _last[case.digest]


@contextlib.contextmanager
def _reference(case: Case) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.default_device(jax.devices("cpu")[0]))
        stack.enter_context(devices.target("cpu"))
        stack.enter_context(jax.default_matmul_precision("highest"))
        if case.wide:
            stack.enter_context(jax.enable_x64(True))
        yield


def _cotangents(case: Case, arguments: Any) -> Any:
    return cotangents_of(lambda arguments: case.what.call(arguments, "xla"), arguments)


def _arrays(results: Any) -> Arrays:
    return [np.asarray(a) for a in jax.device_get(jax.tree.leaves(results))]
