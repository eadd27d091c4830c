"""What the accesses of an executed kernel cost: sectors of device memory, and passes over the banks of shared memory.

A load or store is one request for each warp that executes it. Device memory and its caches answer in whole sectors of 32 bytes.
Shared memory has 32 banks of 4 bytes, and each gives one word per pass: threads that want different words of one bank wait for
each other, threads that want the same word share it. Accesses of 8 and 16 bytes are answered for half and for a quarter of a
warp at a time, so that 128 bytes are the most of a pass.

Sources: NVIDIA, CUDA Programming Guide v13, "Coalesced Global Memory Access" and "Shared Memory Access Patterns". That wide
accesses are split into halves and quarters of a warp is not said there; profilers of Volta and later count so.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from kernels.verification.ptx.text import Instruction
from kernels.verification.ptx.values import Bits

SECTOR = 32  # bytes
BANKS, WORD = 32, 4
WARP = 32
_COUNTED = {"ld", "st", "atom", "red", "cp", "ldmatrix", "stmatrix"}


@dataclasses.dataclass
class Count:
    """Of one space, "global" or "shared".

    Attributes:
      requests: accesses of a warp.
      parts: sectors, or passes over the banks.
      least: as many as would do for these bytes: sectors if they were neighbours, passes without conflicts.
      bytes: distinct ones of each request, added up.
    """

    requests: int = 0
    parts: int = 0
    least: int = 0
    bytes: int = 0


class Counter:
    """A `watch` for `ptx.execute`.

    Attributes:
      counts: by space and "read" or "write".
      distinct: sectors of device memory that were touched at all, by "read" or "write": what reaches memory where a cache holds
        all that the blocks touch.
      atomics: requests of atom and red, in both spaces.
    """

    def __init__(self) -> None:
        self.counts = {(space, how): Count() for space in ("global", "shared") for how in ("read", "write")}
        self.distinct: dict[str, set[int]] = {"read": set(), "write": set()}
        self.atomics = 0

    def __call__(self, space: str, lanes: Any, where: Bits, width: int, it: Instruction, write: bool) -> None:
        if it.parts[0] not in _COUNTED:
            return
        how = "write" if write else "read"
        count = self.counts[space, how]
        lanes = np.broadcast_to(np.asarray(lanes), where.shape)
        for warp in np.unique(lanes // WARP):
            mine = lanes // WARP == warp
            at, lane = where[mine].astype(np.int64), lanes[mine] % WARP
            count.requests += 1
            count.bytes += np.unique(at).size * width
            self.atomics += it.parts[0] in ("atom", "red")
            if space == "global":
                found = np.unique(np.concatenate([at // SECTOR, (at + width - 1) // SECTOR]))
                self.distinct[how].update(found.tolist())
                count.parts += found.size
                count.least += -(-np.unique(at).size * width // SECTOR)
            else:
                parts, least = passes(at, lane, width)
                count.parts += parts
                count.least += least

    def total(self, space: str) -> Count:
        """Reads and writes together."""
        both = [self.counts[space, how] for how in ("read", "write")]
        return Count(*(sum(values) for values in zip(*map(dataclasses.astuple, both), strict=True)))


def passes(at: Bits, lane: Bits, width: int) -> tuple[int, int]:
    """The passes over the banks that one request of a warp takes, and the least for as many threads.

    Args:
      at: addresses, int64.
      lane: of each address, 0 to 31.
      width: bytes of each access.
    """
    together = min(WARP, BANKS * WORD // width)
    total = least = 0
    for group in np.unique(lane // together):
        first = at[lane // together == group]
        words = np.unique(np.concatenate([first // WORD + i for i in range(max(1, width // WORD))]))
        total += int(np.bincount(words % BANKS).max())
        least += 1
    return total, least
