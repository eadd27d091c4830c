"""What the step is fed: batches placed on the device one ahead of the step, and how long it waited for them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from experiments.data.base import Feed
from experiments.training import profiling


def ahead(batches: Iterator[Any], place: Any) -> Iterator[Any]:
    """Batches on the device, the next one in transit while this one is used."""
    waiting = None
    for batch in batches:
        if waiting is not None:
            yield waiting
        waiting = place(batch)
    if waiting is not None:
        yield waiting


def grouped(batches: Iterator[Any], sizes: Iterator[int]) -> Iterator[list[Any]]:
    """The batches in lists of the given sizes."""
    for size in sizes:
        yield list(itertools.islice(batches, size))


class Reading:
    """The reader's batches, with its position for the step that the loop is at: it is ahead of the loop by one batch.

    Attributes:
      seconds: that the device stood idle while a batch was read, since this was last set to 0. Where it still had work when
        the batch came, the step has not waited.
    """

    def __init__(self, feed: Feed, last: Callable[[], jax.Array | None]):
        """`last`: a result of the step called last, None where none is under way."""
        self._feed, self._last = feed, last
        self._positions = [feed.get_state()]
        self.seconds = 0.0

    def batches(self, count: int) -> Iterator[dict[str, np.ndarray]]:
        for _ in range(count):
            begun = time.monotonic()
            with profiling.part("waiting for data"):
                batch = next(self._feed, None)
            if batch is None:
                return
            last = self._last()
            if last is None or last.is_ready():  # type: ignore[attr-defined]
                self.seconds += time.monotonic() - begun
            self._positions.append(self._feed.get_state())
            yield batch

    def used(self, count: int) -> None:
        """So many more batches were stepped on."""
        del self._positions[:count]

    @property
    def position(self) -> dict[str, Any]:
        """To go on from after the steps that were taken."""
        return self._positions[0]
