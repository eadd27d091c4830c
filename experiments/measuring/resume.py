"""The loop of every long run: part after part, each saved before the next, on from where it stopped, ended in time."""

from __future__ import annotations

import argparse
import dataclasses
import gc
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from experiments.errors import UserError
from experiments.measuring import machine
from experiments.measuring.clock import OutOfTimeError

BEGUN = time.monotonic()


@dataclasses.dataclass(frozen=True)
class Part:
    """One row of a result file.

    Attributes:
      needs: what its row says where it need not be done again: the digest of its sources, its options.
      run: its figures; may raise `clock.OutOfTimeError`.
    """

    name: str
    needs: Mapping[str, Any]
    run: Callable[[], dict[str, Any]]


def add_minutes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, help="stop before so much time is over; the same command goes on from there")


def deadline(minutes: float | None) -> float:
    """On time.monotonic, so many minutes after the start of the program.

    Raises:
      UserError: the number is not above 0.
    """
    if minutes is not None and not (minutes > 0 and math.isfinite(minutes)):
        raise UserError(f"--minutes: {minutes:g} given, a number above 0 is needed")
    return BEGUN + 60 * minutes if minutes else math.inf


def go_on(
    parts: Sequence[Part],
    rows: dict[str, dict[str, Any]],
    save: Callable[[str], None],
    *,
    until: float = math.inf,
    say: Callable[[str], None] = print,
) -> list[str]:
    """Run the parts whose row is not there or says something else, and set their rows.

    Args:
      rows: by name; each new one says besides its figures and needs the commit, the date and the seconds that it took.
      save: called with a part's name after its row was set.
      until: on time.monotonic; no part is begun that would end after it, going by its last time or the longest so far.

    Returns:
      The names of the parts for which there was no time.
    """
    current = lambda part: part.name in rows and part.needs.items() <= rows[part.name].items()
    left, longest = [part for part in parts if not current(part)], 0.0
    if len(left) < len(parts):
        say(f"{len(parts) - len(left)} of {len(parts)} stand in the result file already")
    while left:
        part, begun = left[0], time.monotonic()
        expected = rows.get(part.name, {}).get("seconds")
        if begun + (longest if expected is None else expected) > until:
            break
        stamp = {**part.needs, "commit": machine.commit(), "date": machine.today()}
        try:
            found = part.run()
        except OutOfTimeError as stopped:
            say(f"{part.name}: {stopped} when the time was over")
            break
        rows[part.name] = stamp | {"seconds": round(time.monotonic() - begun, 1)} | found
        longest = max(longest, rows[part.name]["seconds"])
        left.pop(0)
        save(part.name)
        free()
    return [part.name for part in left]


def stopped(left: Sequence[str]) -> str:
    """The line for what is left."""
    return f"stopped for time; left: {len(left)}, next {left[0]}. The same command goes on with them."


def free() -> None:
    """Give memory back that the next part may need: compiled programs and what torch keeps."""
    jax.clear_caches()
    gc.collect()
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.compiler.reset()
