"""The loop of every long run: part by part, each saved before the next; it resumes where it stopped and ends in time."""

from __future__ import annotations

import argparse
import dataclasses
import gc
import math
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from experiments.errors import UserError, nearest
from experiments.measuring import machine, result
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
    parser.add_argument("--minutes", type=float, help="stop within this many minutes; the same command resumes")


def deadline(minutes: float | None) -> float:
    """On time.monotonic, so many minutes after the start of the program.

    Raises:
      UserError: the number is not above 0.
    """
    if minutes is not None and not (minutes > 0 and math.isfinite(minutes)):
        raise UserError(f"--minutes: {minutes:g} given, a number above 0 is needed")
    return BEGUN + 60 * minutes if minutes else math.inf


class Completed(NamedTuple):
    """The record as it is now, the names of the parts that were run, and of those for which there was no time."""

    record: dict[str, Any]
    done: list[str]
    left: list[str]


def complete(
    path: pathlib.Path,
    head: dict[str, Any],
    parts: Sequence[Part],
    wanted: Callable[[str], bool] = lambda name: True,
    *,
    field: str = "cases",
    key: str = "name",
    until: float = math.inf,
    saved: Callable[[dict[str, Any], str], None],
) -> Completed:
    """Run the wanted parts whose row the file lacks or that says something else, and write the file after each.

    Args:
      head: the record without its rows.
      parts: of all rows that the file may have, in their order. A new row says, besides its figures and needs, the commit, the
        date and the seconds that it took.
      field, key: of the record, its rows; of a row, its name.
      until: on time.monotonic; no part is begun that would end after it, going by its last time or the longest so far.
      saved: called with the record and a part's name after its row was written.

    Raises:
      UserError: not all parts are wanted, and the file holds rows of another device or other versions, which would be lost.
    """
    old, left = result.earlier(path), [part for part in parts if wanted(part.name)]
    if old is not None and not result.same_conditions(old, head):
        what = "the result file is of another device or of other versions"
        if len(left) < len(parts):
            raise UserError(f"{path}: {what}; do all of it again, or give another folder with --out")
        print(f"{what}: everything is done again")
        old = None
    rows = {row[key]: row for row in old[field]} if old is not None else {}
    record = lambda: head | {field: [rows[part.name] for part in parts if part.name in rows]}
    current = [part for part in left if part.name in rows and part.needs.items() <= rows[part.name].items()]
    if current:
        print(f"{len(current)} of {len(left)} stand in the result file already")
    left, done, longest = [part for part in left if part not in current], [], 0.0
    while left:
        part, begun = left[0], time.monotonic()
        expected = rows.get(part.name, {}).get("seconds")
        if begun + (longest if expected is None else expected) > until:
            break
        stamp = {key: part.name, **part.needs, "commit": machine.commit(), "date": machine.today()}
        try:
            found = part.run()
        except OutOfTimeError as stopped:
            print(f"{part.name}: {stopped} when the time was over")
            break
        rows[part.name] = stamp | {"seconds": round(time.monotonic() - begun, 1)} | found
        longest = max(longest, rows[part.name]["seconds"])
        done.append(left.pop(0).name)
        result.write(record(), path)
        saved(record(), part.name)
        free()
    if left:
        print(f"stopped for time; left: {len(left)}, next {left[0].name}. The same command resumes.")
    return Completed(record() if done or old is None else old, done, [part.name for part in left])


def chosen(parts: Sequence[Part], only: str) -> Callable[[str], bool]:
    """Whether a part's name contains what --only says.

    Raises:
      UserError: none does.
    """
    if not any(only in part.name for part in parts):
        raise UserError(nearest("--only", only, [part.name for part in parts]))
    return lambda name: only in name


def said(line: Callable[[dict[str, Any]], str]) -> Callable[[dict[str, Any], str], None]:
    """For `complete`: each row is printed as a line."""
    return lambda record, name: print(line(next(row for row in record["cases"] if row["name"] == name)), flush=True)


def free() -> None:
    """Free memory that the next part may need: compiled programs and what torch caches."""
    jax.clear_caches()
    gc.collect()
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.compiler.reset()
