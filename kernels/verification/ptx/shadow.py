"""What is remembered of every few bytes of memory: who wrote them last, and who has read them since."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

import numpy as np

from kernels.verification.ptx.clocks import CLOCK_SHIFT, INSTRUCTIONS, NOBODY, UNDER_WAY, Clocks, warps_of

Integers = np.ndarray[Any, Any]
# Told of a problem: what it is, and the number of the instruction on the other side of it, or -1.
Tell = Callable[[str, int], None]


def untouched(count: int, dtype: Any) -> Integers:
    """Zeros that take memory only where they are touched."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
    size = max(count * np.dtype(dtype).itemsize, mmap.PAGESIZE)
    return np.frombuffer(mmap.mmap(-1, size, flags), dtype)[:count]


class Shadow:
    """The events of one array, a grain (the width of the kernel's narrowest access) at a time.

    Args:
      space: "shared" or "global", for what is told.
      size: bytes of the array.
      grain: bytes.
      written: whether all of it was written before the kernel.
      fences: whether the writers' counts of fence.proxy.async are kept, for what asynchronous instructions read.
    """

    def __init__(self, space: str, size: int, grain: int, written: bool, fences: bool = False):
        self.space, self.grain = space, grain
        count = -(-size // 256) * 256 // grain
        self.writes = np.zeros(count, np.int64) if written else np.full(count, NOBODY, np.int64)
        self.fences = np.full(count, -1, np.int32) if fences else None
        # The last reading. Where others have no order with it they stand in `others`, a row for each warp.
        self.reads: Integers | None = None
        self.shared_reads: Integers | None = None
        self.others: Integers | None = None

    def rows(self, events: Integers, at: Integers, width: int) -> Integers:
        """The events of each access, [accesses, grains]; `at` are bytes, multiples of the width."""
        if width == self.grain:
            return events.take(at // width)[:, None]
        return events.reshape(-1, width // self.grain).take(at // width, axis=0)

    def place(self, events: Integers, at: Integers, width: int, event: Integers) -> None:
        if width == self.grain:
            events[at // width] = event
        else:
            events.reshape(-1, width // self.grain)[at // width] = event[:, None]

    def read(self, clocks: Clocks, recent: int, at: Integers, width: int, event: Integers, tell: Tell) -> None:
        """Notes a reading by several threads, and tells where it races.

        Args:
          recent: events before this one are ordered before what the block does now.
          event: of each thread's access.
        """
        before, warps = self.rows(self.writes, at, width), warps_of(event)[:, None]
        if int(before.max()) >= recent:
            late = clocks.unordered(before, warps)
            if late.any():
                other = int(before[late].max())
                state = "is still on its way" if other >> CLOCK_SHIFT >= UNDER_WAY else "is not ordered before it"
                tell(f"{self.space} race: read of what {state}", other % INSTRUCTIONS)
        if int(before.min()) == NOBODY:
            tell(f"{self.space} read of what nobody wrote", -1)
        if self.reads is None:
            self.begin_reads()
        assert self.reads is not None
        assert self.shared_reads is not None
        last = self.rows(self.reads, at, width)
        self.place(self.reads, at, width, event)
        lost = self.rows(self.shared_reads, at, width) | (self.rows(self.reads, at, width) != event[:, None])
        if int(last.max()) >= recent:
            lost = lost | clocks.unordered(last, warps)
        if lost.any():
            self._keep(clocks, at, width, event, last, lost)

    def begin_reads(self) -> None:
        self.reads, self.shared_reads = np.zeros(len(self.writes), np.int64), np.zeros(len(self.writes), np.bool_)

    def _keep(self, clocks: Clocks, at: Integers, width: int, event: Integers, last: Integers, lost: Integers) -> None:
        if self.others is None:
            self.others = untouched(len(clocks.own) * len(self.writes), np.int64).reshape(len(clocks.own), -1)
        access, column = np.nonzero(lost)
        grains = at[access] // self.grain + column
        earlier = last[access, column]
        self.others[warps_of(earlier), grains] = earlier
        self.others[warps_of(event[access]), grains] = event[access]
        assert self.shared_reads is not None
        self.shared_reads[grains] = True

    def write(self, clocks: Clocks, recent: int, at: Integers, width: int, event: Integers, tell: Tell) -> None:
        """Notes a writing by several threads, and tells where it races. The arguments are those of `read`."""
        before, warps = self.rows(self.writes, at, width), warps_of(event)[:, None]
        if int(before.max()) >= recent:
            late = clocks.unordered(before, warps)
            if late.any():
                tell(f"{self.space} race: write over a write", int(before[late].max()) % INSTRUCTIONS)
        if self.reads is not None:
            self._write_over_reads(clocks, recent, at, width, warps, tell)
        self.place(self.writes, at, width, event)

    def _write_over_reads(self, clocks: Clocks, recent: int, at: Integers, width: int, warps: Integers, tell: Tell) -> None:
        assert self.reads is not None
        assert self.shared_reads is not None
        last = self.rows(self.reads, at, width)
        if int(last.max()) < recent:
            return
        late = clocks.unordered(last, warps)
        other = int(last[late].max()) if late.any() else 0
        access, column = np.nonzero(self.rows(self.shared_reads, at, width))
        if len(access):
            assert self.others is not None
            grains = at[access] // self.grain + column
            found = self.others[:, grains]
            unknown = clocks.unordered(found, warps[access].T)
            other = max(other, int(found[unknown].max(initial=0)))
            self.shared_reads[grains] = False
        if other:
            tell(f"{self.space} race: write over what is being read", other % INSTRUCTIONS)
