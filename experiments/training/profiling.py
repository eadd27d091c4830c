"""--profile: a trace of some steps for xprof or Perfetto, and where their time went."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any

import jax
from jax.profiler import ProfileData
from rich.table import Table
from rich.text import Text

from experiments.training.messages import Messages

FOLDER = "profile"
PARTS = ("waiting for data", "dispatch", "metrics", "evaluation", "checkpoint")  # of the loop, in the order of its text
TOP = 10
WARM = 2  # calls of a size before it is traced
# Lines that repeat what others say, in traces of a device.
_SUMMARIES = ("XLA Modules", "XLA TraceMe", "Steps", "Framework Ops", "Source code")

part = jax.profiler.TraceAnnotation
"""A part of the loop by name; next to nothing where nothing is traced."""


@dataclasses.dataclass(frozen=True)
class Spent:
    """Where the time of a trace went, in seconds.

    Attributes:
      wall: from the first step to the last.
      parts: of the loop, on the host.
      operations: compiled ones by name, on all devices together, each without what it calls.
    """

    wall: float
    parts: dict[str, float]
    operations: dict[str, float]


def spent(file: pathlib.Path) -> Spent:
    """Where the time of a trace went, read from the .xplane.pb file."""
    parts: collections.Counter[str] = collections.Counter()
    operations: collections.Counter[str] = collections.Counter()
    begun, ended = [], []
    for plane in ProfileData.from_file(str(file)).planes:
        for line in plane.lines:
            if line.name in _SUMMARIES:
                continue
            events = []
            for event in line.events:
                if event.name in PARTS:
                    parts[event.name] += event.duration_ns / 1e9
                    begun.append(event.start_ns)
                    ended.append(event.start_ns + event.duration_ns)
                elif event.duration_ns and any(name == "hlo_op" for name, _ in event.stats):
                    events.append((event.start_ns, event.start_ns + event.duration_ns, event.name))
            operations.update(_own(events))
    wall = (max(ended) - min(begun)) / 1e9 if begun else 0.0
    return Spent(wall, {name: parts[name] for name in PARTS}, dict(operations))


def _own(events: Iterable[tuple[float, float, str]]) -> dict[str, float]:
    """Seconds by name of events (start, end, name) in nanoseconds, each without those that lie within it."""
    total: dict[str, float] = collections.defaultdict(float)
    open_: list[tuple[float, str]] = []
    for start, end, name in sorted(events, key=lambda event: (event[0], -event[1])):
        while open_ and open_[-1][0] <= start:
            open_.pop()
        if open_:
            total[open_[-1][1]] -= (min(end, open_[-1][0]) - start) / 1e9
        total[name] += (end - start) / 1e9
        open_.append((end, name))
    return dict(total)


def tables(found: Spent, steps: int) -> list[Table]:
    """The loop's time and the operations that took most."""
    loop = Table("the loop, on the host", "ms a step", "share", title=f"{steps} steps traced", title_justify="left")
    rest = max(found.wall - sum(found.parts.values()), 0.0)
    for name, seconds in (found.parts | {"other Python": rest}).items():
        if seconds:
            loop.add_row(name, f"{1e3 * seconds / steps:.3f}", f"{seconds / max(found.wall, 1e-12):.1%}")
    total = sum(found.operations.values())
    work = Table("compiled operation", "ms a step", "share of them")
    for name, seconds in collections.Counter(found.operations).most_common(TOP):
        work.add_row(Text(name), f"{1e3 * seconds / steps:.3f}", f"{seconds / max(total, 1e-12):.1%}")
    return [loop, work]


class Profile:
    """Traces `steps` steps of a run, once the calls that compile are over, and shows where their time went. `steps` 0: none."""

    def __init__(self, workdir: pathlib.Path, steps: int, stepper: Any, say: Messages):
        first = jax.process_index() == 0
        self._folder, self._steps, self._left = workdir / FOLDER, steps if first else 0, steps if first else 0
        self._stepper, self._say = stepper, say
        self._seen: collections.Counter[int] = collections.Counter()
        self._running = False

    def before(self, size: int) -> None:
        """A call of `size` steps comes."""
        if self._left > 0 and not self._running and self._seen[size] >= WARM:
            jax.block_until_ready(self._stepper.leaves)
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # which would slow the steps down
            self._folder.mkdir(exist_ok=True)
            jax.profiler.start_trace(str(self._folder), profiler_options=options)
            self._running = True
        if self._steps:
            self._seen[size] += 1

    def after(self, size: int) -> None:
        """A call of `size` steps was made."""
        if self._running:
            self._left -= size
            if self._left <= 0:
                self._stop()

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._running:
            self._stop()
        elif self._left > 0:
            self._say.warning(f"profile: nothing was traced; the first {WARM} calls of the step compile, and no more were made")

    def _stop(self) -> None:
        with part("metrics"), contextlib.suppress(Exception):
            jax.block_until_ready(self._stepper.leaves)
        jax.profiler.stop_trace()
        self._running, steps, self._left = False, self._steps - self._left, 0
        newest = max(self._folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime, default=None)
        if newest is None:
            self._say.warning(f"profile: JAX wrote no trace to {self._folder}/")
            return
        self._say.info(
            f"profile: {newest} for xprof, {newest.name.replace('.xplane.pb', '.trace.json.gz')} beside it for Perfetto"
        )
        for table in tables(spent(newest), steps):
            self._say.console.print(table)
