"""Faults that are put into a kernel's PTX, one at a time."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence

from experiments.execution.flow import Statement, statement

_ADDRESS = re.compile(r"\[\s*([%$\w]+)\s*(?:\+\s*(-?\w+)\s*)?\]")
SHIFT = 16  # bytes


@dataclasses.dataclass(frozen=True)
class Fault:
    """
    Attributes:
      line: number of the line that is changed.
      was, now: what stands there; nothing where an instruction is dropped.
    """

    kind: str
    line: int
    was: Statement
    now: str

    def put_into(self, lines: Sequence[str]) -> str:
        """The whole text with it."""
        return "\n".join([*lines[: self.line], self.now, *lines[self.line + 1 :]])


def _later(it: Statement) -> str:
    return str(dataclasses.replace(it, rest=str(int(it.rest or "0") + 1)))


def _relaxed(word: str) -> Callable[[Statement], str | None]:
    change = lambda it: str(dataclasses.replace(it, opcode=it.opcode.replace(word, ".relaxed")))
    return lambda it: change(it) if word in it.opcode else None


def _shifted(it: Statement) -> str | None:
    found = _ADDRESS.search(it.rest)
    if found is None:
        return None
    moved = f"[{found[1]}+{int(found[2] or '0', 0) + SHIFT}]"
    return str(dataclasses.replace(it, rest=it.rest[: found.start()] + moved + it.rest[found.end() :]))


def _unguarded(it: Statement) -> str | None:
    return str(dataclasses.replace(it, guard="")) if it.guard else None


def _dropped(_: Statement) -> str:
    return ""


# Kind -> what its instructions begin with, and what becomes of them (None: there is nothing to change).
KINDS: dict[str, tuple[tuple[str, ...], Callable[[Statement], str | None]]] = {
    "bar.sync dropped": (("bar.sync",), _dropped),
    "cp.async.wait_group dropped": (("cp.async.wait_group",), _dropped),
    "cp.async.wait_group, one group later": (("cp.async.wait_group",), _later),
    "cp.async.commit_group dropped": (("cp.async.commit_group",), _dropped),
    "wgmma.wait_group dropped": (("wgmma.wait_group",), _dropped),
    "wgmma.commit_group dropped": (("wgmma.commit_group",), _dropped),
    "wgmma.fence dropped": (("wgmma.fence",), _dropped),
    "fence.proxy.async dropped": (("fence.proxy.async",), _dropped),
    "acquire made relaxed": (("ld.", "atom", "red", "fence"), _relaxed(".acquire")),
    "release made relaxed": (("st.", "atom", "red", "fence"), _relaxed(".release")),
    "arrival at the grid's barrier dropped": (("atom", "red"), _dropped),
    "address of a load from device memory shifted": (("ld.global",), _shifted),
    "address of a store to device memory shifted": (("st.global",), _shifted),
    "address of a load from shared memory shifted": (("ld.shared", "ldmatrix"), _shifted),
    "address of a store to shared memory shifted": (("st.shared", "stmatrix"), _shifted),
    "address of an asynchronous copy shifted": (("cp.async.ca.", "cp.async.cg."), _shifted),
    "predicate of a load removed": (("ld.",), _unguarded),
    "predicate of a store removed": (("st.",), _unguarded),
}
BRANCH = "wait at the grid's barrier dropped"


def faults(lines: Sequence[str]) -> Iterator[Fault]:
    """All of them that have a place in a text."""
    polled = False
    for number, line in enumerate(lines):
        it = statement(line)
        if it is None:
            continue
        for kind, (marks, change) in KINDS.items():
            now = change(it) if it.opcode.startswith(marks) else None
            if now is not None:
                yield Fault(kind, number, it, now)
        polled |= ".acquire" in it.opcode and it.opcode.startswith("ld.")
        if polled and it.opcode.startswith("bra") and it.guard:
            yield Fault(BRANCH, number, it, "")
            polled = False


def spread(places: Sequence[Fault], most: int) -> list[Fault]:
    """Up to so many of them, from the first to the last."""
    count = min(most, len(places))
    return [places[round(i * (len(places) - 1) / max(1, count - 1))] for i in range(count)]


def watched(lines: Sequence[str], line: int, guard: str) -> str:
    """The text with a load from address 0 before a line, which ends the run where a thread for which `guard` holds comes by."""
    load = f"{{ .reg .b64 nowhere; .reg .b32 nothing; mov.b64 nowhere, 0; {guard}ld.global.b32 nothing, [nowhere]; }}"
    return "\n".join([*lines[:line], load, *lines[line:]])


def opposite(guard: str) -> str:
    """Of a guard, "@%p1 " or "@!%p1 "."""
    name = guard[1:].strip()
    return f"@{name[1:].strip()} " if name.startswith("!") else f"@!{name} "
