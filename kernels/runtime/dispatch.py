"""Which implementation of an operator runs, and why.

Every public operator takes ``implementation=``:

- a name ("xla", "triton", "pallas", "cudnn", "interpret"): that one runs, or an `ImplementationError` says why it cannot;
- None: the default of the surrounding ``with kernels.use(name):`` block where the operator has that implementation;
  else the measured winner for this device kind and shape class (kernels/tuned/); else the hand kernel where it can run;
  else "xla".

An operator's ``api.py`` hands `choose` a dict with one entry per implementation it has: None where the kernel takes these
arguments, or a sentence saying why not. What the device can run is added here, so an operator never asks about devices.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import json
import pathlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")

NAMES = ("xla", "triton", "pallas", "cudnn", "interpret")
HAND_WRITTEN = ("pallas", "triton")  # in this order of preference where nothing was measured


class ImplementationError(ValueError):
    """The implementation asked for cannot run; the message lists why, for each one that the operator has."""


@dataclasses.dataclass(frozen=True)
class Device:
    """What a program is compiled for. `kind` names the file in kernels/tuned/; limits are per streaming multiprocessor."""

    kind: str
    platform: str
    compute_capability: tuple[int, int] = (0, 0)
    cores: int = 0
    shared_memory: int = 0  # bytes one block may use
    l2_cache: int = 0  # bytes


H200 = Device("nvidia-h200", "cuda", (9, 0), 132, 232_448, 50 * 2**20)
_KNOWN = {H200.kind: H200}
# Contexts that jax.jit knows of: a function traced under one choice is traced anew under another, never reused by mistake.
_target = jax.make_user_context(None)
_default = jax.make_user_context(None)


@functools.cache
def _present() -> Device:
    first = jax.devices()[0]
    if first.platform != "gpu":
        return Device(first.platform, first.platform)
    kind = "-".join(first.device_kind.lower().split())
    known = next((d for d in _KNOWN.values() if kind.startswith(d.kind)), None)
    if known is not None:
        return known
    major, minor = str(getattr(first, "compute_capability", "0.0")).split(".")[:2]
    platform = "cuda" if "nvidia" in kind else "rocm"
    return Device(kind, platform, (int(major), int(minor)), getattr(first, "core_count", 0), 101_376, 0)  # ty: cc 8.6's limit


def device() -> Device:
    """The device that programs are being compiled for: the first one present, or the one named by `target`."""
    return _target.value or _present()


@contextlib.contextmanager
def target(kind: str) -> Iterator[Device]:
    """Choose implementations as on a device of this kind, present or not, to compile or export for it: "nvidia-h200", "cpu"."""
    if kind != "cpu" and kind not in _KNOWN:
        raise ValueError(f"kind: {kind!r} is not known; known kinds are cpu, {', '.join(_KNOWN)}")
    with _target(_KNOWN.get(kind, Device("cpu", "cpu"))):
        yield device()


@contextlib.contextmanager
def use(implementation: str | None) -> Iterator[None]:
    """Make `implementation` the default for the operators called (traced) inside the block; None restores the automatic choice.

    An operator that has no such implementation at all keeps its automatic choice; one that has it but cannot run it raises.
    """
    if implementation is not None and implementation not in NAMES:
        raise ValueError(f"implementation: {implementation!r} is none of {', '.join(NAMES)}")
    with _default(implementation):
        yield


def operator(fn: Callable[P, R]) -> Callable[P, R]:
    """Decorates a public operator: its name stands in profiles and in compiled programs.

    The package it comes from, which it hides, is its attribute `package`: `kernels.max_pool.package.xla`.
    """

    @functools.wraps(fn)
    def named(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.named_scope(fn.__name__):
            return fn(*args, **kwargs)

    named.package = importlib.import_module(fn.__module__.rpartition(".")[0])  # type: ignore[attr-defined]
    return named


@functools.cache
def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def device_reason(implementation: str) -> str | None:
    """Why this device (or this installation) cannot run such a kernel; None if it can."""
    here = device()
    if implementation == "xla":
        return None
    if implementation == "interpret":
        return None if _installed("triton") else "the package triton is not installed"
    if here.platform != "cuda":
        return f"it needs an NVIDIA GPU, and programs here run on {here.platform}"
    if implementation == "triton":
        if here.compute_capability < (8, 0):
            return f"it needs compute capability 8.0, and {here.kind} has {'.'.join(map(str, here.compute_capability))}"
        missing = [m for m in ("triton", "jax_triton") if not _installed(m)]
        return f"the package {missing[0].replace('_', '-')} is not installed" if missing else None
    if implementation == "pallas" and here.compute_capability[0] != 9:
        return f"it needs compute capability 9.0 (Hopper), and {here.kind} has {'.'.join(map(str, here.compute_capability))}"
    return None


@functools.cache
def tuned(kind: str) -> Mapping[str, dict]:
    """What was measured on a device kind: {operator: {shape class: {"implementation": ..., ...}}}; empty if nothing was."""
    path = pathlib.Path(__file__).parents[1] / "tuned" / f"{kind}.json"
    return json.loads(path.read_text())["operators"] if path.exists() else {}


def available(operator: str) -> dict[str, str | None]:
    """The implementations an operator has: None for one that this device can run, else why it cannot.

    Whether one also takes certain arguments is known when it is called with them.
    """
    folder = pathlib.Path(__file__).parents[1]
    operators = sorted(path.parent.name for path in folder.glob("*/api.py"))
    if operator not in operators:
        raise ValueError(f"operator: {operator!r} is none of {', '.join(operators)}")
    names = importlib.import_module(f"kernels.{operator}.api").IMPLEMENTATIONS
    return {name: device_reason(name) for name in names}


def named(implementation: str | None, has: Collection[str]) -> str | None:
    """The implementation that the call, or else the block of `use` around it, names; None where the choice is automatic."""
    return _default.value if implementation is None and _default.value in has else implementation


def choose(
    operator: str,
    implementation: str | None,
    has: Mapping[str, str | None],
    shape_class: str | None = None,
    on_request: Collection[str] = (),
) -> str:
    """The implementation to run.

    Args:
      operator: its public name, for messages and for kernels/tuned/.
      implementation: what the caller asked for.
      has: for each implementation the operator has, None if it takes these arguments, else why it does not.
      shape_class: key of the measured choice.
      on_request: implementations that nothing but their name, or a measurement that found them fastest, chooses.

    Raises:
      ImplementationError: the one asked for, here or by `use`, does not exist or cannot run.
    """
    reasons = {name: reason or device_reason(name) for name, reason in has.items()}
    wanted = named(implementation, reasons)
    if wanted is not None:
        if wanted not in reasons:
            raise ImplementationError(f"implementation: {operator} has no {wanted!r}; it has {', '.join(reasons)}")
        if reasons[wanted] is not None:
            listed = "; ".join(f"{name}: {reason or 'can run'}" for name, reason in reasons.items())
            raise ImplementationError(f"implementation: {operator} cannot run {wanted!r} here ({listed})")
        return wanted
    measured = tuned(device().kind).get(operator, {}).get(shape_class or "", {}).get("implementation")
    for name in (measured, *(name for name in HAND_WRITTEN if name not in on_request)):
        if name in reasons and reasons[name] is None:
            return name
    return "xla"
