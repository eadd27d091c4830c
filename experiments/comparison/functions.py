"""Functions and shapes of one's own, compared as the operators are: checked, then timed alternating."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments import own
from experiments.comparison import conclusions
from experiments.comparison.case import Case
from experiments.comparison.contenders import leaves_to_numpy
from experiments.errors import UserError
from experiments.measuring import clock, machine
from experiments.measuring.clock import TOLERANCE, Contender
from kernels.runtime import dispatch

Found = dict[str, Any]
Draw = Callable[[np.random.Generator], Sequence[Any]]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What `compare` found; `print` shows a line per function and who won.

    Attributes:
      record: one case as in a result file: for each function error, median, p20 and p80 in seconds, or why it failed.
      counts: bytes and operations of each function's program by XLA's own count, where it has one.
    """

    record: Found
    counts: dict[str, dict[str, float]]

    @property
    def case(self) -> Found:
        return self.record["cases"][0]

    @property
    def winner(self) -> str | None:
        """The name of the fastest function; "even" where the next one is within the noise, None where fewer than two ran."""
        return conclusions.outcome(self.case, "median").winner

    @property
    def ratio(self) -> float:
        """The time of the next function over that of the fastest, 1 or above."""
        return conclusions.outcome(self.case, "median").ratio

    def __str__(self) -> str:
        lines = []
        for name, figures in self.case["contenders"].items():
            if "failed" in figures:
                lines.append(textwrap.shorten(f"{name}: {figures['failed']}", conclusions.WIDTH, placeholder=" ..."))
                continue
            median, p20, p80 = (f"{figures[key] * 1e3:.4g}" for key in ("median", "p20", "p80"))
            lines.append(f"{name:<20.20} {median:>10} ms  (p20 {p20}, p80 {p80})  error {figures['error']:.1e}")
        return "\n".join([*lines, textwrap.fill(self.conclusion, conclusions.WIDTH)])

    @property
    def conclusion(self) -> str:
        """Who won, and the counts that go with it, in sentences."""
        found = conclusions.outcome(self.case, "median")
        if found.first is None:
            return "None of them ran."
        if found.second is None:
            return f"{found.first} is the only one that ran."
        if found.even:
            said = f"No difference beyond the noise between {found.first} and {found.second}, the fastest."
        else:
            said = f"{found.first} is {found.ratio:.2f}x as fast as {found.second}."
        first, second = (self._counted(name) for name in (found.first, found.second))
        if first and first == second:
            said += f" XLA counts the same for both in the compiled programs: {first}."
        elif first and second:
            said += f" XLA counts, in the compiled programs, {first} for {found.first} and {second} for {found.second}."
        return f"Measured on {self.record['device']}: {said}"

    def _counted(self, name: str) -> str:
        counts = next((of for key, of in self.counts.items() if conclusions.side_of(key) == name), None)
        return "" if counts is None else f"{counts['bytes'] / 1e6:.4g} MB and {counts['flops'] / 1e6:.4g} Mflop"


def compare(
    functions: Mapping[str, Callable[..., Any]],
    inputs: Sequence[Any] | Draw,
    *,
    tolerance: float | None = None,
    rounds: int = 9,
    block_seconds: float = 0.05,
    name: str = "own case",
    seed: int = 0,
) -> Comparison:
    """Check functions of the same arrays against the first of them, then time the right ones, alternating.

    Each is compiled with `jax.jit`. Every block of calls takes inputs that exceed the cache in turn.

    Args:
      functions: by name; the first is the reference. "xla" is shown as XLA's code, "triton" and "pallas" as hand-written.
      inputs: arrays, any shapes and dtypes; or a function of a `numpy.random.Generator` that draws them, anew for each set.
      tolerance: largest relative error, |out - ref| / |ref| of the worst output, that counts as right; if None 2e-3 for
        float32, 5e-3 for float16, 3e-2 for bfloat16 inputs.
      rounds: blocks of each function, 1 or more.
      block_seconds: about how long a block of calls takes, in seconds.
      name: of the case, in what is printed.
      seed: of the generator that inputs are drawn with.

    Returns:
      The comparison: `print` it, or read `winner` and `ratio`.

    Raises:
      UserError: there is no function, or no input.
    """
    if not functions or not all(callable(function) for function in functions.values()):
        raise UserError(f"functions: {dict(functions)!r:.60} given, names with functions are needed")
    if rounds < 1:
        raise UserError(f"rounds: {rounds} given, 1 or more is needed")
    draw: Draw = inputs if callable(inputs) else lambda rng: inputs
    drawn = lambda rng: [np.asarray(x) for x in draw(rng)]
    first = drawn(np.random.default_rng(seed))
    if not first:
        raise UserError("inputs: none given, at least one array is needed")
    dtype = next((str(x.dtype) for x in first if str(x.dtype) in TOLERANCE), "float32")
    compiled = {key: jax.jit(function) for key, function in functions.items()}
    contenders = {key: lambda call=call: Contender(call, to_numpy=leaves_to_numpy) for key, call in compiled.items()}
    reference = leaves_to_numpy(next(iter(compiled.values()))(*first))
    allowed = TOLERANCE[dtype] if tolerance is None else tolerance
    limits = {"rounds": rounds, "block_seconds": block_seconds, "seed": seed}
    found = clock.measure(contenders, drawn, reference, allowed, platform=dispatch.device().platform, **limits)  # type: ignore[arg-type]
    case = {"name": name, "dtype": dtype, "contenders": found}
    record = {"measured": True, "how": "measured", "experiment": "own"} | machine.surroundings() | {"cases": [case]}
    counts = {key: of for key, call in compiled.items() if "median" in found[key] and (of := counted(call, first))}
    return Comparison(record, counts)


def counted(call: Any, inputs: Sequence[Any]) -> dict[str, float] | None:
    """Bytes and operations of a compiled function by XLA's own count; None where it has none."""
    try:
        found = call.lower(*inputs).compile().cost_analysis()
    except (NotImplementedError, RuntimeError):
        return None
    return {"bytes": float(found.get("bytes accessed", 0)), "flops": float(found.get("flops", 0))} if found else None


def load(spec: str) -> Case | tuple[Mapping[str, Callable[..., Any]], Any]:
    """What the function that `--case MODULE:FUNCTION` names returns: a `Case`, or functions and inputs as `compare` takes them.

    Raises:
      UserError: there is no such function, or it returns neither.
    """
    if not all(spec.partition(":")):
        raise UserError(f"--case: {spec!r} given, MODULE:FUNCTION is needed")
    made = own.function_of("--case", spec)()
    if isinstance(made, Case) or (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], Mapping)):
        return made
    raise UserError(f"--case: {spec} returns a {type(made).__name__}; a Case, or functions by name and inputs are needed")
