"""What a run finds: errors that end it, and problems that it lists and goes on from."""

from __future__ import annotations

import collections
import dataclasses


class ExecutionError(Exception):
    """The kernel did what a GPU answers with an error, a hang or garbage."""


class OutOfBoundsError(ExecutionError):
    """An access outside every array."""


class MisalignedError(ExecutionError):
    """An address that is no multiple of the access's width."""


class ReadOnlyError(ExecutionError):
    """A write to an input."""


class HangError(ExecutionError):
    """Nothing that still runs can go on."""


class DivergenceError(ExecutionError):
    """Threads that must take part in an instruction are elsewhere."""


class UndefinedRegisterError(ExecutionError):
    """A register is read that nothing has written."""


class NotCoveredError(ExecutionError):
    """An instruction, modifier or form of an operand that this executor does not know. Nothing is skipped instead."""


class ProblemsError(ExecutionError):
    """A run came to its end, and its report lists races, reads of unwritten memory or the like."""


@dataclasses.dataclass
class Report:
    """What a run has seen.

    Attributes:
      instructions: executed, each counted once a block.
      blocks: that ran.
      problems: (what is wrong, where) -> how often. Races are found whether or not this order of threads brought them out.
      executed: opcode -> how often.
      touched: (array, "read" or "write") -> the first and the one-past-last byte, where a run was asked for addresses alone.
      stopped: the limit on instructions ended a block; only a run for addresses alone ends so.
    """

    instructions: int = 0
    blocks: int = 0
    problems: collections.Counter[tuple[str, str]] = dataclasses.field(default_factory=collections.Counter)
    executed: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    touched: dict[tuple[str, str], tuple[int, int]] = dataclasses.field(default_factory=dict)
    stopped: bool = False

    def count(self, what: str) -> int:
        """How many problems there are whose description has this word."""
        return sum(n for (kind, _), n in self.problems.items() if what in kind)

    def summary(self) -> str:
        """The problems in one line, the most frequent ones first."""
        return "; ".join(f"{n} x {what} at {where}" for (what, where), n in self.problems.most_common(3))
