"""Which implementation of an operator runs, and why.

Every public operator takes ``implementation=``:

- a name ("xla", "triton", "pallas", "cudnn", "interpret", "ptx"): that one runs, or an `ImplementationError` says why not;
- None: the default of the surrounding ``with kernels.use(name):`` block where the operator has that implementation;
  else the measured winner for this device kind and shape class (kernels/runtime/measured.py); else the hand kernel where it
  can run, and has no barrier across its grid or was checked on this device; else "xla".

"interpret" and "ptx" run the kernels of "triton" on the CPU, slowly, to show that they are right: "interpret" runs their source
in Triton's interpreter, "ptx" executes the PTX that Triton compiles it to. Nothing but their name chooses them.

An operator's ``api.py`` hands `choose` a dict with one entry per implementation it has: None where the kernel takes these
arguments, or a sentence saying why not. What the device can run is added here, so an operator never asks about devices.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import pathlib
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar

import jax

from kernels.runtime import measured, meshes
from kernels.runtime.devices import BASELINE, CPU, H200, Device, device, target

__all__ = ["CPU", "H200", "Device", "device", "target"]  # of devices.py

P = ParamSpec("P")
R = TypeVar("R")

ON_HOST = ("interpret", "ptx")  # run Triton's kernels on the CPU
TRITON = ("triton", *ON_HOST)  # all ways to run a kernel in Triton
NAMES = ("xla", "triton", "pallas", "cudnn", *ON_HOST)
HAND_WRITTEN = ("pallas", "triton")  # in this order of preference where nothing was measured


class ImplementationError(ValueError):
    """The implementation asked for cannot run; the message lists why, for each one that the operator has."""


# Contexts that jax.jit knows of: a function traced under one choice is traced anew under another, never reused by mistake.
_default = jax.make_user_context(None)
_as_if_checked = jax.make_user_context(False)


@contextlib.contextmanager
def use(implementation: str | None) -> Iterator[None]:
    """Make `implementation` the default for the operators called (traced) inside the block; None restores the automatic choice.

    An operator that has no such implementation at all keeps its automatic choice; one that has it but cannot run it raises.
    """
    if implementation is not None and implementation not in NAMES:
        raise ValueError(f"implementation: {implementation!r} is none of {', '.join(NAMES)}")
    with _default(implementation):
        yield


_calls: list[list[tuple[str, str, tuple[Any, ...], dict[str, Any]]]] = []
_choices: list[dict[tuple[str, str], str]] = []


@contextlib.contextmanager
def calls_made() -> Iterator[list[tuple[str, str, tuple[Any, ...], dict[str, Any]]]]:
    """The calls of operators that are traced inside the block: operator, function, positional and keyword arguments."""
    record: list[tuple[str, str, tuple[Any, ...], dict[str, Any]]] = []
    _calls.append(record)
    try:
        yield record
    finally:
        _calls.remove(record)


@contextlib.contextmanager
def choices_made() -> Iterator[dict[tuple[str, str], str]]:
    """The implementations that are chosen inside the block, by operator and shape class."""
    record: dict[tuple[str, str], str] = {}
    _choices.append(record)
    try:
        yield record
    finally:
        _choices.remove(record)


def operator(batch_axes: meshes.BatchAxes = 0) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a public operator: its name stands in profiles and in compiled programs, and it takes arrays on any mesh.

    The package it comes from, which it hides, is its attribute `package`: `kernels.max_pool.package.xla`.

    Args:
      batch_axes: at which axis its result has the batch, or None; a tuple of these for a tuple of results.
    """

    def decorate(fn: Callable[P, R]) -> Callable[P, R]:
        package = importlib.import_module(fn.__module__.rpartition(".")[0])

        @functools.wraps(fn)
        def named(*args: P.args, **kwargs: P.kwargs) -> R:
            for record in _calls:
                record.append((package.__name__.rpartition(".")[2], fn.__name__, args, kwargs))
            with jax.named_scope(fn.__name__):
                mesh, batch = meshes.sharded_axes((args, kwargs))
                if mesh is not None:
                    return meshes.call(fn, batch_axes, mesh, batch, args, kwargs)
                return fn(*args, **kwargs)

        named.package = package  # type: ignore[attr-defined]
        return named

    return decorate


@functools.cache
def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def device_reason(implementation: str) -> str | None:
    """Why this device (or this installation) cannot run such a kernel; None if it can."""
    here = device()
    if implementation == "xla":
        return None
    if implementation in ON_HOST:
        return None if _installed("triton") else "the package triton is not installed"
    if here.platform != "cuda":
        return f"it needs an NVIDIA GPU, and programs here run on {here.platform}"
    if implementation == "triton":
        if here.compute_capability < BASELINE:
            least, has = (".".join(map(str, pair)) for pair in (BASELINE, here.compute_capability))
            return f"it needs compute capability {least}, and {here.kind} has {has}"
        missing = [m for m in ("triton", "jax_triton") if not _installed(m)]
        return f"the package {missing[0].replace('_', '-')} is not installed" if missing else None
    if implementation == "pallas" and here.compute_capability[0] != 9:
        return f"it needs compute capability 9.0 (Hopper), and {here.kind} has {'.'.join(map(str, here.compute_capability))}"
    return None


def available(operator: str) -> dict[str, str | None]:
    """The implementations an operator has: None for one that this device can run, else why it cannot.

    Whether one also takes certain arguments is known when it is called with them.
    """
    if operator not in operators():
        raise ValueError(f"operator: {operator!r} is none of {', '.join(operators())}")
    return {name: device_reason(name) for name in _api(operator).IMPLEMENTATIONS}


@functools.cache
def operators() -> tuple[str, ...]:
    """The names of all operators."""
    return tuple(sorted(path.parent.name for path in pathlib.Path(__file__).parents[1].glob("*/api.py")))


def _api(operator: str) -> types.ModuleType:
    return importlib.import_module(f"kernels.{operator}.api")


def function(operator: str, name: str = "") -> Callable[..., Any]:
    """The public function of an operator, or another one of its package by name."""
    return getattr(_api(operator), name or operator)


def by_itself(operator: str) -> tuple[str, dict[str, str]]:
    """What `implementation=None` takes on this device where nothing was measured for a shape, and why it takes no other."""
    reasons = {name: reason for name, reason in available(operator).items() if reason is not None}
    api = _api(operator)
    for name in getattr(api, "COOPERATIVE", ()):
        if name not in reasons and (reason := unasked(operator, name)) is not None:
            reasons[name] = reason
    reasons |= dict.fromkeys(set(getattr(api, "ON_REQUEST", ())) - set(reasons), "only where it was measured to be the fastest")
    chosen = next((n for n in (*HAND_WRITTEN, "xla") if n in api.IMPLEMENTATIONS and n not in reasons), "xla")
    return chosen, reasons


def named(implementation: str | None, has: Collection[str]) -> str | None:
    """The implementation that the call, or else the block of `use` around it, names; None where the choice is automatic."""
    return _default.value if implementation is None and _default.value in has else implementation


@contextlib.contextmanager
def as_if_checked() -> Iterator[None]:
    """Choose as on a device where `python -m kernels check` has passed: to compile for one that is not there."""
    with _as_if_checked(True):
        yield


def choose(
    operator: str,
    implementation: str | None,
    has: Mapping[str, str | None],
    shape_class: str | None = None,
    on_request: Collection[str] = (),
    cooperative: Collection[str] = (),
) -> str:
    """The implementation to run.

    Args:
      operator: its public name, for messages and for what was measured.
      implementation: what the caller asked for.
      has: for each implementation the operator has, None if it takes these arguments, else why it does not.
      shape_class: key of the measured choice.
      on_request: implementations that nothing but their name, or a measurement that found them fastest, chooses.
      cooperative: implementations with a barrier across their grid. One that goes wrong hangs the device, so they are chosen
        unasked only on a device where `python -m kernels check` has passed them or a measurement found them fastest, and never
        inside a program of several devices, whose collectives may keep multiprocessors from the grid.

    Raises:
      ImplementationError: the one asked for, here or by `use`, does not exist or cannot run.
    """
    chosen = _chosen(operator, implementation, has, shape_class, on_request, cooperative)
    for record in _choices:
        record[operator, shape_class or ""] = chosen
    return chosen


def _chosen(
    operator: str,
    implementation: str | None,
    has: Mapping[str, str | None],
    shape_class: str | None,
    on_request: Collection[str],
    cooperative: Collection[str],
) -> str:
    reasons = {name: reason or device_reason(name) for name, reason in has.items()}
    wanted = named(implementation, reasons)
    if wanted is not None:
        if wanted not in reasons:
            raise ImplementationError(f"implementation: {operator} has no {wanted!r}; it has {', '.join(reasons)}")
        if reasons[wanted] is not None:
            listed = "; ".join(f"{name}: {reason or 'can run'}" for name, reason in reasons.items())
            raise ImplementationError(f"implementation: {operator} cannot run {wanted!r} here ({listed})")
        return wanted
    for name in (fastest(operator, shape_class), *(name for name in HAND_WRITTEN if name not in on_request)):
        if name in cooperative and unasked(operator, name, shape_class) is not None:
            continue
        if name in reasons and reasons[name] is None:
            return name
    return "xla"


def fastest(operator: str, shape_class: str | None) -> str | None:
    """What was measured to be the fastest implementation of a shape class on the device at hand; None if nothing was."""
    return measured.tuned(device()).get(operator, {}).get(shape_class or "", {}).get("implementation")


def unasked(operator: str, implementation: str | None, shape_class: str | None = None) -> str | None:
    """Why an implementation with a barrier across its grid is not chosen by itself; None if it may be."""
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty and mesh.size > 1:
        return f"it has a barrier across its grid, and the program runs on {mesh.size} devices"
    if _as_if_checked.value or fastest(operator, shape_class) == implementation:
        return None
    if implementation is not None and measured.passed(device(), operator, implementation):
        return None
    return f"it has a barrier across its grid, and `python -m kernels check {operator}` has not passed on {device().kind}"
