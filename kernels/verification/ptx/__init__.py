"""Executes the compiled code of a kernel: the PTX that Triton makes for a GPU, on the CPU, one instruction at a time.

text reads it; program, steps and instructions make functions of it (arithmetic, movement, warps, tensor_cores, wgmma, copies,
bulk say what each does); block and grid run threads and blocks; memory holds every access against its array; clocks and shadow
find races; traffic counts sectors and bank conflicts. `launch` runs a launch of one of the operators' kernels, `execute` any
kernel, mosaic.execute one of Mosaic GPU; errors says what they find.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from kernels.runtime.devices import BASELINE
from kernels.runtime.launches import Launch
from kernels.verification.ptx.errors import ExecutionError, NotCoveredError, ProblemsError, Report
from kernels.verification.ptx.grid import LIMIT, Grid, arrays_of
from kernels.verification.ptx.memory import Watch
from kernels.verification.ptx.program import Program
from kernels.verification.ptx.traffic import Counter

__all__ = [
    "ExecutionError",
    "NotCoveredError",
    "ProblemsError",
    "Program",
    "Report",
    "Seen",
    "execute",
    "launch",
    "program",
    "watching",
]


@functools.lru_cache(maxsize=256)
def program(call: Launch, compute_capability: tuple[int, int] = BASELINE) -> tuple[Program, int]:
    """A recorded launch, compiled for an architecture and read; and the bytes of shared memory that a block of it is given.

    Raises:
      CompilationError: Triton refuses the kernel.
      NotCoveredError: an instruction is not known.
    """
    from kernels.verification import aot

    found = aot.compiled(call, compute_capability)
    return Program(found.ptx), found.shared_memory


def launch(
    call: Launch, inputs: Sequence[Any], compute_capability: tuple[int, int] = BASELINE, seed: int = 0
) -> list[np.ndarray]:
    """Runs a launch of an operator's kernel on arrays; its results. Of `seed` see `execute`.

    Raises:
      CompilationError: Triton refuses the kernel for this architecture.
      ExecutionError: what a GPU would answer with an error, a hang or garbage, and races and reads of unwritten memory.
    """
    compiled, shared_memory = program(call, compute_capability)
    if _watched:
        only, seen = _watched[-1]
        counter = Counter()
        options: dict[str, Any] = {"zeroed_outputs": call.zeroed_outputs, "in_place": call.in_place}
        options |= {"shared_memory": shared_memory, "only": only, "addresses": True, "watch": counter}
        results, report = execute(compiled, call.grid, inputs, call.outputs, **options)
        seen.append(Seen(call, counter, report))
        return results
    results, report = execute(
        compiled,
        call.grid,
        inputs,
        call.outputs,
        zeroed_outputs=call.zeroed_outputs,
        in_place=call.in_place,
        shared_memory=shared_memory,
        cooperative=call.cooperative,
        seed=seed,
    )
    if report.problems:
        raise ProblemsError(f"{call.kernel.fn.__name__}: {report.summary()}")
    return results


class Seen(NamedTuple):
    """A launch, what its blocks asked of memory, and what they executed."""

    call: Launch
    counter: Counter
    report: Report


_watched: list[tuple[Sequence[int], list[Seen]]] = []


@contextlib.contextmanager
def watching(only: Sequence[int] = (0,)) -> Iterator[list[Seen]]:
    """Of each launch with implementation="ptx" inside the block, only the blocks with these numbers run, and what they do is
    counted; the results of all other blocks are undefined."""
    seen: list[Seen] = []
    _watched.append((only, seen))
    try:
        yield seen
    finally:
        _watched.pop()


def execute(
    program: Program,
    grid: Sequence[int],
    inputs: Sequence[Any],
    outputs: Sequence[tuple[tuple[int, ...], Any]],
    *,
    zeroed_outputs: Sequence[int] = (),
    in_place: Sequence[tuple[int, int]] = (),
    shared_memory: int = 0,
    cooperative: bool = False,
    seed: int = 0,
    only: Sequence[int] | None = None,
    addresses: bool = False,
    limit: int = LIMIT,
    watch: Watch | None = None,
) -> tuple[list[np.ndarray], Report]:
    """Runs a kernel whose parameters are pointers: to the inputs, then to the outputs.

    Args:
      inputs: arrays; they are copied.
      outputs: shape and dtype of each; they begin as poison (255 in every byte), or as zeros where `zeroed_outputs` names them.
      in_place: pairs of an input and an output that are the same memory.
      shared_memory: bytes of it that a block is given at the launch.
      cooperative: all blocks run at the same time, in an order drawn from `seed`.
      only: numbers of the blocks to run, x fastest; None for all.
      addresses: only what is touched is of interest. Arrays may be larger than memory, and nothing looks for races; inputs of
        256 MiB and more hold zeros.
      limit: instructions after which a block that has not ended hangs.
      watch: told of every access to device and shared memory; `traffic.Counter` counts what they cost.

    Returns:
      The outputs, and what was seen.

    Raises:
      ExecutionError: what a GPU would answer with an error, a hang or garbage.
    """
    arrays, pointed = arrays_of(program, inputs, outputs, zeroed_outputs, in_place, not addresses)
    parameters = {
        name: (pointed[i].start if i < len(pointed) else 0).to_bytes(size, "little")
        for i, (name, size) in enumerate(program.kernel.parameters.items())
    }
    run = Grid(program, grid, arrays, parameters, shared_memory, cooperative, seed, not addresses, limit, watch=watch)
    report = run.run(only)
    results = [
        array.content.view(np.dtype(dtype)).reshape(shape)
        for array, (shape, dtype) in zip(pointed[len(inputs) :], outputs, strict=True)
    ]
    return results, report
