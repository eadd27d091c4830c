"""Which event comes before which: vector clocks of warps (Mattern 1989; Flanagan and Freund's FastTrack, 2009).

Every warp counts its own events, and knows of every other warp the last event that is certain to come before what it does
next. A barrier, and a release that an acquire has seen, hand knowledge on. Two accesses of which at least one is a write are a
race where neither warp knew of the other's, whether or not this run brought them out in the wrong order.

An event is one integer: the warp's clock, the warp and the instruction, in this order, so that events of one warp compare by
time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

WARP_SHIFT, CLOCK_SHIFT = 20, 34
INSTRUCTIONS, WARPS = 1 << WARP_SHIFT, 1 << (CLOCK_SHIFT - WARP_SHIFT)
UNDER_WAY = 1 << 28  # the clock of what no warp can know of yet
NOBODY = -1  # the event of memory that nothing has written
BEFORE = 0  # the event of what was there before the kernel


def warps_of(events: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (events >> WARP_SHIFT) & (WARPS - 1)


class Clocks:
    """Of the warps that may see each other's accesses: those of one block, or of all blocks that run at the same time.

    Args:
      warps: how many.
      base: a clock past that of every event so far. Events from before it belong to blocks that ran earlier in this emulation,
        and that on a GPU would have run at any time.
    """

    def __init__(self, warps: int, base: int = 1):
        self.base = base
        self.known = np.zeros((warps, warps), np.int64)
        self.own = np.full(warps, base, np.int64)
        np.fill_diagonal(self.known, base)
        self.released: dict[int, np.ndarray[Any, Any]] = {}

    def tick(self, warps: slice | int | np.ndarray[Any, Any]) -> None:
        self.own[warps] += 1
        index = np.arange(len(self.own))[warps]
        self.known[index, index] = self.own[warps]

    def barrier(self, warps: np.ndarray[Any, Any] | slice) -> int:
        """All of these know what each of them knows; their clocks are equal then: the clock is returned."""
        self.known[warps] = self.known[warps].max(0)
        clock = int(self.own[warps].max()) + 1
        self.own[warps] = clock
        index = np.arange(len(self.own))[warps]
        self.known[index, index] = clock
        return clock

    def release(self, address: int, warp: int) -> None:
        """What this warp knows goes to whoever acquires at the address; what others released there stays."""
        before = self.released.get(address)
        self.released[address] = self.known[warp].copy() if before is None else np.maximum(before, self.known[warp])
        self.tick(warp)

    def acquire(self, address: int, warp: int) -> None:
        known = self.released.get(address)
        if known is not None:
            np.maximum(self.known[warp], known, out=self.known[warp])

    def unordered(self, events: np.ndarray[Any, Any], warps: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Which of these events are not certain to come before what these warps do now. Arrays that broadcast."""
        clock = events >> CLOCK_SHIFT
        late = clock > self.known[warps, np.minimum(warps_of(events), len(self.own) - 1)]
        return (events > BEFORE) & (late | (clock < self.base))
