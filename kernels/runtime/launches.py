"""A launch of a @triton.jit kernel as it is traced, and the lists of them that are being made."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

# A multiplication and an addition become one instruction, as in every version of Triton so far; from 3.9 on it asks to be told.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

RESERVED = 4  # multiprocessors that a grid with a barrier across it leaves to whatever else runs


def usable_cores(cores: int) -> int:
    """Of a device's multiprocessors, those that a grid with a barrier across it may take: one at least."""
    return max(1, cores - RESERVED)


@dataclasses.dataclass(frozen=True)
class Launch:
    """One launch as it was traced.

    Attributes:
      dtypes, shapes: of the arrays, inputs before outputs.
      inputs: how many of the arrays are inputs.
      zeroed_outputs, in_place, cooperative: as `launch` was given them.
    """

    kernel: Any
    dtypes: tuple[Any, ...]
    grid: tuple[int, ...]
    num_warps: int
    num_stages: int
    constants: tuple[tuple[str, Any], ...]
    shapes: tuple[tuple[int, ...], ...] = dataclasses.field(default=(), compare=False)
    inputs: int = dataclasses.field(default=0, compare=False)
    zeroed_outputs: tuple[int, ...] = dataclasses.field(default=(), compare=False)
    in_place: tuple[tuple[int, int], ...] = dataclasses.field(default=(), compare=False)
    cooperative: bool = dataclasses.field(default=False, compare=False)

    @property
    def outputs(self) -> list[tuple[tuple[int, ...], np.dtype]]:
        """Shape and dtype of each."""
        return [(shape, np.dtype(dtype)) for shape, dtype in zip(self.shapes, self.dtypes, strict=True)][self.inputs :]


_recorders: list[list[Launch]] = []


@contextlib.contextmanager
def recording() -> Iterator[list[Launch]]:
    """Lists the launches that are traced inside the block."""
    record: list[Launch] = []
    _recorders.append(record)
    try:
        yield record
    finally:
        _recorders.remove(record)


@contextlib.contextmanager
def unrecorded() -> Iterator[None]:
    """Launches traced inside the block are a trial, and stand in no list."""
    saved = list(_recorders)
    _recorders.clear()
    try:
        yield
    finally:
        _recorders.extend(saved)


def note(call: Launch) -> None:
    """Adds a launch to every list that is being made."""
    for record in _recorders:
        record.append(call)
