"""The text of a kernel as statements, and which of them may come after or before which: what waits, and is not needed."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Sequence

_STATEMENT = re.compile(r"\s*(@!?\s*%\w+\s+)?([a-z][\w.:]*)\s*(.*?);\s*$")
_LABEL = re.compile(r"(\$L__BB\w+):")
_SHARED = ("ld.shared", "st.shared", "ldmatrix", "stmatrix", "wgmma.mma", "mbarrier")
_COPIES = ("cp.async.ca.", "cp.async.cg.", "cp.async.bulk")
_OTHERS = ("atom", "red", "ld.global.gpu", "st.global.gpu")  # what other blocks take part in


@dataclasses.dataclass(frozen=True)
class Statement:
    """An instruction of a text: what guards it, "@%p1 " or "", its opcode, and the rest."""

    guard: str
    opcode: str
    rest: str

    def __str__(self) -> str:
        return f"{self.guard}{self.opcode} {self.rest}".strip() + ";"


def statement(line: str) -> Statement | None:
    """The instruction of a line; None where there is none."""
    code = line.partition("//")[0]
    found = _STATEMENT.match(code)
    return Statement(found[1] or "", found[2], found[3]) if found is not None else None


Test = Callable[[Statement], bool]


class Flow:
    """
    Attributes:
      at: number of a line -> its statement.
    """

    def __init__(self, lines: Sequence[str]):
        self.at: dict[int, Statement] = {}
        labels: dict[str, int] = {}
        for number, line in enumerate(lines):
            if (label := _LABEL.match(line)) is not None:
                labels[label[1]] = number
            elif (it := statement(line)) is not None:
                self.at[number] = it
        numbers = list(self.at)
        next_of = dict(itertools.pairwise(numbers))
        behind = {name: next((n for n in numbers if n > at), None) for name, at in labels.items()}
        self._after: dict[int, list[int]] = {number: [] for number in numbers}
        self._before: dict[int, list[int]] = {number: [] for number in numbers}
        for number, it in self.at.items():
            turns = it.opcode.startswith(("bra", "ret", "exit"))
            to = [next_of.get(number)] if it.guard or not turns else []
            if it.opcode.startswith("bra"):
                to.append(behind.get(it.rest.strip()))
            for other in to:
                if other is not None:
                    self._after[number].append(other)
                    self._before[other].append(number)

    def until(self, line: int, meets: Test, forward: bool = True) -> Iterator[Statement]:
        """The statements that may come after one (or before it) without another between for which `meets` holds."""
        edges = self._after if forward else self._before
        waiting, seen = list(edges[line]), set()
        while waiting:
            number = waiting.pop()
            if number in seen or meets(self.at[number]):
                continue
            seen.add(number)
            yield self.at[number]
            waiting += edges[number]

    def redundant(self, line: int) -> str | None:
        """Why what waits here is not needed, as far as the text says; None where it may be.

        Of a bar.sync it holds where no race is seen in device memory without it.
        """
        it = self.at[line]
        if it.opcode.startswith("bar.sync"):
            another = lambda it: it.opcode.startswith("bar.sync")
            if not any(map(_shares, self.until(line, another))):
                return "no access to shared memory comes between it and the next bar.sync or the end"
            if not any(map(_shares, self.until(line, another, False))):
                return (
                    "no access to shared memory but copies, which a later wait orders, comes between the last bar.sync and it"
                )
        if it.opcode.startswith("cp.async.wait_group"):
            least = int(it.rest or "0")
            waits = lambda it: it.opcode.startswith("cp.async.wait_group") and int(it.rest or "0") <= least
            if not any(map(_shares, self.until(line, waits))):
                return "another wait comes before any access to shared memory"
        if it.opcode.startswith("cp.async.commit_group"):
            commits = lambda it: it.opcode.startswith("cp.async.commit_group")
            if not any(it.opcode.startswith("cp.async.wait_group") for it in self.until(line, commits)):
                return "its copies join the next group, and what waits waits for both"
        return None


def _shares(it: Statement) -> bool:
    return it.opcode.startswith((*_SHARED, *_OTHERS))
