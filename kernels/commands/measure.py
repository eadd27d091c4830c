"""Checks every implementation of an operator with each of its block sizes, times it, and remembers the fastest."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import importlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernels.commands.cases import Case, both_ways, cotangents_of
from kernels.commands.comparison import WrongError, worst_error
from kernels.runtime import devices, dispatch, measured, tuning
from kernels.verification import aot, residency

REFUSALS = (dispatch.ImplementationError, aot.CompilationError, residency.NotResidentError, jax.errors.JaxRuntimeError)
Runs = Mapping[str, Sequence[Callable[[], Any]]]  # a name -> calls on different inputs


def interleaved(runs: Runs, rounds: int = 7, block: float = 0.05) -> dict[str, float]:
    """Seconds per call: the median over rounds, in each of which all are timed in turn for about `block` seconds.

    Calls are asynchronous and go through their inputs in turn.
    """
    counts = {}
    for name, calls in runs.items():
        jax.block_until_ready([call() for call in calls])
        begun = time.perf_counter()
        jax.block_until_ready([call() for call in calls])
        counts[name] = max(1, min(1000, int(block * len(calls) / (time.perf_counter() - begun))))
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, calls in runs.items():
            begun = time.perf_counter()
            results = [calls[i % len(calls)]() for i in range(counts[name])]
            jax.block_until_ready(results[-1])
            found[name].append((time.perf_counter() - begun) / counts[name])
    return {name: float(np.median(times)) for name, times in found.items()}


def candidates(operator: str, implementation: str) -> tuple[str, list[dict[str, Any]]]:
    """The block sizes to try, and the name that they are remembered under; [{}] where an implementation has none to choose."""
    module = "recurrent" if operator in ("rnn", "lstm", "gru") else operator
    prefix = {"xla": "XLA_", "pallas": "PALLAS_", "cudnn": "CUDNN_"}.get(implementation, "")
    try:
        listed: Sequence[Any] = getattr(importlib.import_module(f"kernels.{module}.config"), f"{prefix}CANDIDATES", ({},))
    except ModuleNotFoundError:
        listed = ({},)
    name = module if not prefix else f"{module}.{implementation}"
    return name, [dict(c) if isinstance(c, dict) else dataclasses.asdict(c) for c in listed]


@contextlib.contextmanager
def _with_candidate(name: str, values: dict[str, Any]) -> Iterator[None]:
    with tuning.candidate(name, values) if values else contextlib.nullcontext():
        yield


@dataclasses.dataclass(frozen=True)
class Found:
    """What was measured of one case.

    Attributes:
      seconds: of each implementation that ran, with its best candidate, forward and backward.
      left_out: "implementation candidate" -> why it is not among them.
      entries: what `kernels.runtime.measured` keeps: {operator: {key: entry}}.
    """

    case: str
    seconds: dict[str, float]
    left_out: dict[str, str]
    entries: dict[str, dict[str, dict[str, Any]]]

    def __str__(self) -> str:
        first, *others = sorted(self.seconds, key=lambda name: self.seconds[name])
        times = ", ".join(f"{name} {_time(self.seconds[name])}" for name in (first, *others))
        won = f"{first} is {self.seconds[others[0]] / self.seconds[first]:.2f} times as fast as {others[0]}: " if others else ""
        return f"{self.case}: {won}{times}" + "".join(f"\n  left out: {what}: {why}" for what, why in self.left_out.items())


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} us"


def measure(
    case: Case | Recorded,
    dtype: str,
    implementations: Sequence[str] | None = None,
    clock: Callable[[Runs], dict[str, float]] = interleaved,
    build: Callable[..., list[Callable[[], Any]]] | None = None,
) -> Found:
    """All implementations that run here (or these), each candidate checked, then timed; the best of each timed together.

    Args:
      clock: from calls by name to seconds by name.
      build: from case, implementation and inputs to the calls that are timed; by default `checked`.
    """
    inputs = [case.draw(dtype, seed) for seed in range(2)]
    if build is None:
        build = functools.partial(checked, dtype=dtype, expected=_expected(case, inputs[0]))
    with dispatch.choices_made() as choices:
        jax.eval_shape(lambda a: case.call(a, None), inputs[0])
    best: dict[str, list[Callable[[], Any]]] = {}
    left_out: dict[str, str] = {}
    entries: dict[str, dict[str, dict[str, Any]]] = {}
    if implementations is None:
        found = dispatch.available(case.operator)
        implementations = [n for n, reason in found.items() if reason is None and n not in dispatch.ON_HOST]
    for implementation in implementations:
        name, listed = candidates(case.operator, implementation)
        runs: dict[str, list[Callable[[], Any]]] = {}
        keys: set[tuple[str, str]] = set()
        for values in listed:
            label = json.dumps(values)
            try:
                if values:
                    with tuning.keys_asked() as asked:
                        jax.eval_shape(lambda a, i=implementation: _program(case, i)(*a), _given(case, inputs[0]))
                    keys |= {key for key in asked if key[0] == name}
                with _with_candidate(name, values):
                    runs[label] = build(case, implementation, inputs)
            except (*REFUSALS, WrongError) as error:
                left_out[f"{implementation} {label}" if values else implementation] = str(error).partition("\n")[0]
        if not runs:
            continue
        times = clock(runs) if len(runs) > 1 else dict.fromkeys(runs, math.nan)
        fastest = min(runs, key=lambda label: times[label]) if len(runs) > 1 else next(iter(runs))
        best[implementation] = runs[fastest]
        if fastest != "{}":
            entry = {"config": json.loads(fastest), "candidates": times}
            entries.setdefault(name, {}).update({key: entry for _, key in keys})
    seconds = clock(best)
    if seconds:
        winner = {"implementation": min(seconds, key=lambda name: seconds[name]), "seconds": seconds, "left_out": left_out}
        for operator, key in choices:
            if operator == case.operator:
                entries.setdefault(operator, {})[key] = winner
    return Found(f"{case.operator} {case.name}, {dtype}", seconds, left_out, entries)


def _program(case: Case | Recorded, implementation: str | None) -> Callable[..., Any]:
    fn = lambda arguments: case.call(arguments, implementation)
    return both_ways(fn) if case.backward else fn


def _given(case: Case | Recorded, arguments: Any) -> tuple[Any, ...]:
    return (arguments, cotangents_of(lambda a: case.call(a, "xla"), arguments)) if case.backward else (arguments,)


def _expected(case: Case | Recorded, arguments: Any) -> list[np.ndarray]:
    """Of XLA in float32 throughout, on the device: in float64 on the CPU the largest cases would take minutes."""
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), arguments)
    with jax.default_matmul_precision("highest"):
        found = jax.jit(_program(case, "xla"))(*_given(case, wide))
    return [np.asarray(a, np.float64) for a in jax.tree.leaves(found)]


def checked(
    case: Case | Recorded, implementation: str, inputs: Sequence[Any], dtype: str, expected: list[np.ndarray]
) -> list[Callable[[], Any]]:
    """A call for each of the inputs, of a program whose results on the first are right.

    Raises:
      WrongError: they are not.
    """
    given = [_given(case, arguments) for arguments in inputs]
    program = jax.jit(_program(case, implementation)).lower(*given[0]).compile()
    found = [np.asarray(a, np.float64) for a in jax.tree.leaves(program(*given[0]))]
    worst_error(case, dtype, found, expected, factor=64 if dtype == "float32" else 1)  # float32 products may run as tf32
    return [functools.partial(program, *one) for one in given]


@dataclasses.dataclass(frozen=True)
class Recorded:
    """A call of an operator as a function makes it, to be made with random arrays in the place of its own."""

    operator: str
    function: str
    leaves: tuple[Any, ...]
    structure: Any
    backward: bool
    roundings: float = 32

    @property
    def name(self) -> str:
        shapes = [
            "x".join(map(str, leaf.shape)) for leaf in self.leaves if isinstance(leaf, jax.ShapeDtypeStruct) and leaf.shape
        ]
        return " ".join(shapes)

    @property
    def dtype(self) -> str:
        return next(str(leaf.dtype) for leaf in self.leaves if _is_floating(leaf))

    def draw(self, dtype: Any, seed: int = 0) -> list[jax.Array]:
        """The floating-point arrays, each in its own dtype."""
        rng = np.random.default_rng(seed)
        drawn = lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape) * 0.1, jnp.float32).astype(leaf.dtype)
        return [drawn(leaf) for leaf in self.leaves if _is_floating(leaf)]

    def call(self, arguments: Sequence[jax.Array], implementation: str | None) -> Any:
        given = iter(arguments)
        leaves = [next(given) if _is_floating(leaf) else _stand_in(leaf) for leaf in self.leaves]
        args, kwargs = jax.tree.unflatten(self.structure, leaves)
        return dispatch.function(self.operator, self.function)(*args, **kwargs, implementation=implementation)


def _is_floating(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct) and jnp.issubdtype(leaf.dtype, jnp.floating)


def _stand_in(leaf: Any) -> Any:
    """For what is no floating-point array: itself, ones in the place of integers (a label, a length), a key."""
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.key(0)
    return jnp.ones(leaf.shape, leaf.dtype)


def recorded_calls(fn: Callable[..., Any], args: Sequence[Any]) -> list[Recorded]:
    """The different calls of operators that `fn(*args)` makes."""
    with dispatch.calls_made() as calls:
        jax.eval_shape(fn, *args)
    found: dict[Any, Recorded] = {}
    for operator, function, positional, named in calls:
        named = {name: value for name, value in named.items() if name != "implementation"}
        leaves, structure = jax.tree.flatten((positional, named))
        shapes = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) if hasattr(a, "dtype") else a for a in leaves)
        # A small network is one kernel forward; differentiated, it is XLA's.
        call = Recorded(operator, function, shapes, structure, backward=operator not in ("lenet5", "mlp"))
        if any(_is_floating(leaf) for leaf in shapes):
            found.setdefault((function, str(shapes), str(structure)), call)
    return list(found.values())


def autotune(fn: Callable[..., Any], args: Sequence[Any], minutes: float, **options: Any) -> list[Found]:
    """See `kernels.autotune`."""
    here = devices.device()
    implementations = options.get("implementations")
    if implementations is None and (reason := dispatch.device_reason("triton")) is not None:
        raise RuntimeError(f"nothing to measure: the hand-written kernels do not run here: {reason}")
    deadline, longest, found = time.monotonic() + 60 * minutes, 0.0, []
    for call in recorded_calls(fn, args):
        begun = time.monotonic()
        if begun + longest > deadline:
            break
        found.append(measure(call, call.dtype, **options))
        longest = max(longest, time.monotonic() - begun)
        remember(here, found[-1].entries, {})
    return found


def remember(
    device: devices.Device, entries: Mapping[str, Mapping[str, Any]], stamp: Mapping[str, Any], done: str | None = None
) -> str:
    """Into the user's file of this device, with the name of the case that is `done` with them; the file's path.

    Raises:
      OSError: it cannot be written.
    """
    dated = {"date": datetime.date.today().isoformat()} | dict(stamp)

    def change(content: dict[str, Any]) -> None:
        if done is not None:
            content.setdefault("done", {})[done] = dict(stamp)
        for operator, found in entries.items():
            content["operators"].setdefault(operator, {}).update({key: dict(entry) | dated for key, entry in found.items()})

    return str(measured.update(device, change))
