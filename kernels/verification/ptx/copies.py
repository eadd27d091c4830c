"""cp.async: copies from device to shared memory that arrive when a wait covers them. Until then their destination is poison."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kernels.verification.ptx.clocks import CLOCK_SHIFT, INSTRUCTIONS, UNDER_WAY
from kernels.verification.ptx.errors import NotCoveredError
from kernels.verification.ptx.memory import POISON
from kernels.verification.ptx.steps import Layout, Step
from kernels.verification.ptx.text import Instruction
from kernels.verification.ptx.values import Bits

if TYPE_CHECKING:
    from kernels.verification.ptx.block import Block

ON_ITS_WAY = UNDER_WAY << CLOCK_SHIFT


class Copy(NamedTuple):
    """What some threads have asked for in one instruction; `at` are bytes of shared memory."""

    group: int
    lanes: Any
    at: Bits
    data: Bits
    it: Instruction


class Copies:
    """Those of a block that are under way. Each thread closes a group of its copies with a commit; all do so together here."""

    def __init__(self, block: Block):
        self.block, self.group = block, 0
        self.under_way: list[Copy] = []

    def start(self, lanes: Any, where: Bits, data: Bits, it: Instruction) -> None:
        """data: uint8 [threads, bytes]."""
        block, width = self.block, data.shape[1]
        ((array, _, at),) = block.shared.find(block, lanes, where, width, it, True)
        if array.shadow is not None:
            event = block.events(lanes, it)
            block.shared.note_write(block, array, at, width, event, lanes, it)
            array.shadow.place(array.shadow.writes, at, width, event | ON_ITS_WAY)
            array.view(1, width)[at // width] = POISON
        self.under_way.append(Copy(self.group, lanes, at, data, it))

    def commit(self, it: Instruction) -> None:
        self.group += 1

    def wait(self, left: int, it: Instruction) -> None:
        """Waits for all groups but the last `left`."""
        block, array = self.block, self.block.shared.arrays[0]
        through = self.group - left
        for copy in (c for c in self.under_way if c.group < through):
            width = copy.data.shape[1]
            if array.shadow is not None:
                event = block.events(copy.lanes, copy.it)
                now = array.shadow.rows(array.shadow.writes, copy.at, width)
                mine = (now >= ON_ITS_WAY) & (now % INSTRUCTIONS == copy.it.number)  # else someone wrote there since
                arrived = np.where(mine, event[:, None], now)
                array.shadow.writes.reshape(-1, arrived.shape[1])[copy.at // width] = arrived
            array.view(1, width)[copy.at // width] = copy.data
        self.under_way = [c for c in self.under_way if c.group >= through]

    def finish(self) -> None:
        if self.under_way:
            self.block.tell(self.under_way[0].it)("a copy that is never waited for", -1)


def decode(program: Layout, it: Instruction) -> Step:
    if it.parts[1:3] == ["async", "commit_group"]:
        return Step(it, lambda block, mask: block.copies.commit(_all(mask, it)))
    if it.parts[1:3] in (["async", "wait_group"], ["async", "wait_all"]):
        left = int(it.operands[0]) if it.operands else 0
        if it.operands:
            return Step(it, lambda block, mask: block.copies.wait(left, _all(mask, it)))

        def everything(block: Block, mask: Any) -> None:
            block.copies.commit(_all(mask, it))
            block.copies.wait(0, it)

        return Step(it, everything)
    known = {"L2::cache_hint", "L2::64B", "L2::128B", "L2::256B"}
    if it.parts[:2] != ["cp", "async"] or it.parts[2] not in ("ca", "cg"):
        raise NotCoveredError("a copy of this form")
    if it.parts[3] not in ("shared", "shared::cta") or it.parts[4] != "global" or set(it.parts[5:]) - known:
        raise NotCoveredError("a copy of this form")
    size = int(it.operands[2], 0)
    to, to_base = program.address(it.operands[0], 32)
    source, source_base = program.address(it.operands[1], 64)
    taken = program.slot(it.operands[3], 32) if len(it.operands) > 3 else None
    program.access("shared", size)
    program.access("global", min(size, 4))

    def run(block: Block, mask: Any) -> None:
        lanes = block.lanes(mask)
        where = block.spread(source(block), mask)
        data = np.zeros((len(lanes), size), np.uint8)
        counts = np.full(len(lanes), size) if taken is None else block.spread(block.R[taken], mask)
        for count in np.unique(counts).tolist():  # bytes that are taken; the rest is zero
            if count not in (0, size):
                raise NotCoveredError(f"not covered: {count} bytes of {size}: {it}")
            some = np.flatnonzero(counts == count)
            if count:
                found = block.grid.memory.load(block, lanes[some], where[some], min(size, 4), max(size // 4, 1), it)
                data[some] = np.ascontiguousarray(found.T).view(np.uint8)
        block.copies.start(lanes, block.spread(to(block), mask), data, it)

    return Step(it, run, "memory", reads=(to_base, source_base, *([] if taken is None else [taken])))


def _all(mask: Any, it: Instruction) -> Instruction:
    if mask is not None:
        raise NotCoveredError(f"not covered: not all threads of the block: {it}")
    return it
