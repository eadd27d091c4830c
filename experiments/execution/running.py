"""Runs a case: each launch of its operator is executed as compiled, and its results go on to the operator.

The interpreter runs the launch too, on the same arrays, and both are compared. The operator's results and gradients, which the
compiled kernels have made, are compared with float64.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from experiments.execution import programs
from experiments.execution.case import Case
from kernels.runtime import devices, dispatch, launch
from kernels.verification import aot, interpret, ptx
from kernels.verification.ptx import errors

POISON = 255
OUTSIDE = (errors.OutOfBoundsError, errors.MisalignedError, errors.ReadOnlyError)
Arrays = list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Ready:
    """One launch with all that it needs.

    Attributes:
      expected: what the interpreter makes of it.
    """

    call: launch.Launch
    inputs: tuple[np.ndarray, ...]
    expected: tuple[np.ndarray, ...]

    def execute(self, program: ptx.Program, shared_memory: int, **options: Any) -> tuple[Arrays, ptx.Report]:
        """Of `options` see `ptx.execute`."""
        call = self.call
        return ptx.execute(
            program,
            call.grid,
            self.inputs,
            self.call.outputs,
            zeroed_outputs=call.zeroed_outputs,
            in_place=call.in_place,
            cooperative=call.cooperative,
            shared_memory=shared_memory,
            **options,
        )


@dataclasses.dataclass
class Found:
    """What was seen of the launches of one kernel in a case.

    Attributes:
      difference: the largest from the interpreter, relative to the largest element of an output.
      races, out_of_bounds, unwritten: how often; the second counts accesses outside every array, misaligned ones and writes to
        inputs, each of which ends a launch.
      faults: these and all others in words.
    """

    kernel: str
    launches: int = 0
    blocks: int = 0
    threads: int = 0
    instructions: int = 0
    difference: float = 0.0
    races: int = 0
    out_of_bounds: int = 0
    unwritten: int = 0
    faults: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0


class RefusedError(Exception):
    """The kernels do not run on this GPU, as the operator, Triton or the GPU's limits say: there is nothing to execute."""


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference of an output from what is expected, relative to its largest element or 1 where that is less.

    Infinite where one is not a number or infinite and the other is not the same, where integers differ, and where poison was
    left in one and not in the other.
    """
    if b.dtype.kind in "iu":
        return 0.0 if np.array_equal(a, b) else np.inf
    if not np.array_equal(_poisoned(a), _poisoned(b)):
        return np.inf
    return _apart(np.asarray(a, np.float64), np.asarray(b, np.float64))


def wrong(found: Sequence[np.ndarray], expected: Sequence[np.ndarray], tolerance: Callable[[np.dtype], float]) -> list[str]:
    """The outputs that are further from what is expected than is allowed of their dtype, in words."""
    return [
        f"output {i}: off by {apart:.1e} from the interpreter, {tolerance(b.dtype):.1e} is allowed"
        for i, (a, b) in enumerate(zip(found, expected, strict=True))
        if (apart := difference(a, b)) > tolerance(b.dtype)
    ]


def _poisoned(array: np.ndarray) -> np.ndarray:
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8).reshape(array.size, -1)
    return (raw == POISON).all(1)


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
        return np.inf
    if not finite.any():
        return 0.0
    return float(np.abs(a[finite] - b[finite]).max() / max(1.0, float(np.abs(b[finite]).max())))


class Executed:
    """Takes the interpreter's place: executes each launch for an architecture, and keeps what is seen.

    Args:
      here: the GPU that is compiled for, and that has so much shared memory for a block.
      tolerance: of an output of a launch against the interpreter, by its dtype.
      seeds: orders of the blocks of a cooperative launch; others run in one.
    """

    def __init__(self, here: devices.Device, tolerance: Callable[[np.dtype], float], seeds: int):
        self.here, self.tolerance, self.seeds = here, tolerance, seeds
        self.found: dict[str, Found] = {}
        self.ready: list[Ready] = []
        self.refused: str | None = None
        self._done: dict[str, Arrays] = {}

    def __call__(self, call: launch.Launch, inputs: Sequence[np.ndarray]) -> Arrays:
        given = tuple(np.array(a) for a in inputs)
        key = hashlib.sha256(repr((call, call.shapes)).encode() + b"".join(a.tobytes() for a in given)).hexdigest()
        if key not in self._done:  # an operator alone, and again where it is differentiated
            ready = Ready(call, given, tuple(interpret.interpreted(call, given)))
            self.ready.append(ready)
            self._done[key] = self._executed(ready)
        return self._done[key]

    def _executed(self, ready: Ready) -> Arrays:
        name = ready.call.kernel.fn.__name__
        found = self.found.setdefault(name, Found(name))
        results = list(ready.expected)
        try:
            program, shared_memory = ptx.program(ready.call, self.here.compute_capability)
        except aot.CompilationError as error:
            self.refused = str(error)
            return results
        except ptx.NotCoveredError as error:
            found.faults.append(str(error))
            return results
        if shared_memory > self.here.shared_memory:
            self.refused = f"{name} needs {shared_memory} bytes of shared memory, a block has {self.here.shared_memory}"
            return results
        found.launches += 1
        for seed in range(self.seeds if ready.call.cooperative else 1):
            begun = time.monotonic()
            try:
                results, report = ready.execute(program, shared_memory, seed=seed)
            except ptx.ExecutionError as error:
                found.faults.append(f"{type(error).__name__}: {error}")
                found.out_of_bounds += isinstance(error, OUTSIDE)
                continue
            found.seconds += time.monotonic() - begun
            self._add(found, ready, program, results, report)
        return results

    def _add(self, found: Found, ready: Ready, program: ptx.Program, results: Arrays, report: ptx.Report) -> None:
        found.blocks += report.blocks
        found.threads = program.kernel.threads
        found.instructions += report.instructions
        found.races += report.count("race") + report.count("at once")
        found.unwritten += report.count("nobody wrote")
        found.faults += [f"{n} x {what} at {where}" for (what, where), n in report.problems.most_common(3)]
        found.difference = max([found.difference, *map(difference, results, ready.expected)])
        found.faults += wrong(results, ready.expected, self.tolerance)


@contextlib.contextmanager
def executing(case: Case, dtype: str, architecture: str, seeds: int = 1) -> Iterator[Executed]:
    """Inside the block implementation="interpret" is what is compiled for the architecture."""
    with case.circumstances(architecture) as here:
        executed = Executed(here, lambda output: case.launch_tolerance(dtype, output), seeds)
        with interpret.instead(executed):
            yield executed


def run(case: Case, dtype: str, architecture: str, seeds: int = 1) -> dict[str, Any]:
    """A case's entry in the record."""
    arguments = case.draw(dtype)
    row: dict[str, Any] = {"error": None, "tolerance": case.tolerance(dtype), "refused": None, "faults": []}
    with executing(case, dtype, architecture, seeds) as executed:
        try:
            found = programs.results(case, arguments)
        except dispatch.ImplementationError as error:
            return row | {"refused": " ".join(str(error).split()), "kernels": []}
        except Exception as error:  # a row of the table, not the end of the run
            kernels = [_row(seen) for seen in executed.found.values()]
            return row | {"faults": [" ".join(f"{type(error).__name__}: {error}".split())], "kernels": kernels}
    row["refused"] = executed.refused
    if executed.refused is None:
        row |= _against(found, programs.exact(case, arguments), row["tolerance"])
    return row | {"kernels": [_row(found) for found in executed.found.values()]}


def _row(found: Found) -> dict[str, Any]:
    about = dataclasses.asdict(found)
    about["seconds"] = round(found.seconds, 3)
    about["difference"] = _finite(found.difference)
    about["faults"] = list(dict.fromkeys(found.faults))[:6]
    return about


def _finite(error: float) -> float | None:
    return float(f"{error:.3g}") if np.isfinite(error) else None


def _against(found: Arrays, exact: Arrays, tolerance: float) -> dict[str, Any]:
    # Of a case with kinks the gradients, which are the last, are not among the exact ones.
    apart = [_apart(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in zip(found, exact, strict=False)]
    worst = max(apart, default=0.0)
    faults = [
        f"result {i}: off by {error:.1e} of its largest element, {tolerance:.1e} is allowed"
        if np.isfinite(error)
        else f"result {i}: NaN or infinity where float64 has none, or none where it has one"
        for i, error in enumerate(apart)
        if error > tolerance
    ]
    return {"error": _finite(worst), "faults": faults}
