"""One block: its threads, their registers, and who runs next.

Every thread has a place in the program. Those at the least place run together, until they meet threads ahead of them or part at
a branch; so threads that parted meet again where their ways do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from kernels.verification.ptx.bulk import Bulk
from kernels.verification.ptx.clocks import CLOCK_SHIFT, UNDER_WAY, WARP_SHIFT, Clocks
from kernels.verification.ptx.copies import Copies
from kernels.verification.ptx.errors import DivergenceError, HangError, UndefinedRegisterError
from kernels.verification.ptx.memory import POISON, Array, Memory
from kernels.verification.ptx.shadow import Shadow
from kernels.verification.ptx.steps import SHARED
from kernels.verification.ptx.text import Instruction
from kernels.verification.ptx.values import UNSIGNED, Bits
from kernels.verification.ptx.wgmma import GROUP_WARPS, Products

if TYPE_CHECKING:
    from kernels.verification.ptx.grid import Grid

WARP = 32


class Block:
    """
    Attributes:
      R: the registers, by slot; None where nothing was written yet, one element where all threads hold the same.
      first: number of its first warp among those that `clocks` is of.
      since: a clock that all of its warps have passed together.
      fences: of each warp, how often it has run fence.proxy.async.
    """

    def __init__(self, grid: Grid, index: tuple[int, int, int], clocks: Clocks, first: int):
        program = grid.program
        self.grid, self.program, self.index, self.clocks, self.first = grid, program, index, clocks, first
        self.n = program.kernel.threads
        self.warps = self.n // WARP
        self.own_warps = slice(first, first + self.warps)
        self.R: list[Any] = [None] * len(program.bits)
        for slot, value in program.constants.items():
            self.R[slot] = value
        for name, value in self._special().items():
            if name in program.slots:
                self.R[program.slots[name]] = value
        self.all_lanes = np.arange(self.n)
        size = program.static_shared + grid.shared_memory
        shadow = Shadow("shared", size, program.grain["shared"], False, program.asynchronous) if grid.tracked else None
        array = Array("shared memory", SHARED, size, True, shadow)
        array.data.fill(POISON)
        self.shared = Memory("shared", [array], grid.tracked, grid.memory.watch)
        self.memories = {"shared": self.shared, "global": grid.memory}
        self.copies, self.bulk = Copies(self), Bulk(self)
        self.products = [Products(self, i) for i in range(self.warps // GROUP_WARPS)] if program.asynchronous else []
        self.agent = first + self.warps  # the warp that stands for the hardware's copies, where the kernel has them
        if program.agents:
            # Its clock is past those of all warps, so that none of its events is ordered by a barrier.
            clocks.own[self.agent] = clocks.known[self.agent, self.agent] = UNDER_WAY // 2
        self.fences = np.zeros(self.warps, np.int32)
        self.at_barrier, self.needed = np.zeros(self.n, np.int64), np.full(self.n, self.n)
        self.since = clocks.base
        self.refresh()

    def _special(self) -> dict[str, Bits]:
        lane = np.arange(self.n, dtype=np.uint32)
        one = lambda value: np.array([value], np.uint32)
        known = {"%tid.x": lane, "%tid.y": one(0), "%tid.z": one(0), "%laneid": lane % WARP, "%warpid": lane // WARP}
        known |= {"%ntid.x": one(self.n), "%ntid.y": one(1), "%ntid.z": one(1)}
        for axis, at, size in zip("xyz", self.index, self.grid.size, strict=True):
            known |= {f"%ctaid.{axis}": one(at), f"%nctaid.{axis}": one(size)}
        return known

    # Registers. `mask` says which threads an instruction is for; None says all of them.

    def write(self, slot: int, value: Bits, mask: Any) -> None:
        if mask is not None:
            before = self.R[slot]
            value = np.where(mask, value, np.array([-1]).astype(value.dtype) if before is None else before)
        self.R[slot] = value

    def place(self, slot: int, value: Bits, lanes: Any, mask: Any) -> None:
        """`value` is of `lanes` alone."""
        if mask is not None:
            before = self.R[slot]
            full = np.empty(self.n, value.dtype)
            full[:] = 0 if before is None else before
            full[lanes] = value
            value = full
        self.R[slot] = value

    def moved(self, slot: int) -> Bits:
        """A register of which bytes are only moved: poison where nothing was written.

        Compilers fill words up with registers that they never write, and use the other bytes alone.
        """
        value = self.R[slot]
        return np.array([-1]).astype(UNSIGNED[self.program.bits[slot]]) if value is None else value

    def lanes(self, mask: Any) -> Any:
        return self.all_lanes if mask is None else np.flatnonzero(mask)

    def spread(self, value: Bits, mask: Any) -> Bits:
        """A value for each thread that takes part."""
        if len(value) == 1:
            return np.full(self.n if mask is None else np.count_nonzero(mask), value[0])
        return value if mask is None else value[mask]

    def full(self, slot: int) -> Bits:
        """A register with an element for every thread, [warps, 32]."""
        value = self.R[slot]
        return (value if len(value) == self.n else np.full(self.n, value[0])).reshape(-1, WARP)

    def whole_warps(self, mask: Any, it: Instruction) -> Any:
        """The warps that take part; each must with all of its threads."""
        if mask is None:
            return np.arange(self.warps)
        threads = mask.reshape(-1, WARP)
        some = threads.any(1)
        if (some != threads.all(1)).any():
            raise DivergenceError(f"a warp of block {self.index} is divided at {it}")
        return np.flatnonzero(some)

    # What comes before what

    def fence(self, mask: Any) -> None:
        """fence.proxy.async: what these warps stored is there for asynchronous instructions."""
        self.fences[np.unique(self.lanes(mask) // WARP)] += 1

    def refresh(self) -> None:
        """After a change of its warps' clocks."""
        clocks = self.clocks.own[self.own_warps]
        warps = np.arange(self.first, self.first + self.warps)
        self._events = np.repeat((clocks << CLOCK_SHIFT) | (warps << WARP_SHIFT), WARP)
        # Events before this one are ordered before what the block does now. Those of device memory may be other blocks'.
        self._recent = {"shared": self.since << CLOCK_SHIFT, "global": 1}

    def events(self, lanes: Any, it: Instruction) -> Bits:
        """The event of an instruction, for each thread."""
        return self._events[lanes] + it.number

    def recent(self, space: str) -> int:
        return self._recent[space]

    def tick(self, lanes: Any) -> None:
        """After a release by these threads."""
        self.clocks.tick(self.first + np.unique(lanes // WARP))
        self.refresh()

    def note_barrier(self, lanes: Any, where: Bits, it: Instruction, made: bool) -> None:
        """An mbarrier is made, or used: it must have been made before."""
        for array, mine, at in self.shared.find(self, lanes, where, 8, it, True):
            if array.shadow is not None:
                event = self.events(lanes[mine], it)
                if made:
                    self.shared.note_write(self, array, at, 8, event, lanes[mine], it)
                else:
                    array.shadow.read(self.clocks, self.recent("shared"), at, 8, event, self.tell(it))

    def barrier(self) -> None:
        self.since = self.clocks.barrier(self.own_warps)
        self.refresh()

    def tell(self, it: Instruction) -> Callable[[str, int], None]:
        def told(what: str, other: int) -> None:
            against = f", against {self.program.steps[other].it}" if other >= 0 else ""
            self.grid.report.problems[what, f"{it}{against}"] += 1

        return told

    def name_barrier(self, name: int, count: int, mask: Any) -> None:
        """The barrier at which these threads arrive, and for how many threads it is."""
        lanes = self.lanes(mask)
        self.at_barrier[lanes] = self.spread(self.R[name], mask)
        self.needed[lanes] = self.spread(self.R[count], mask)

    def open_barriers(self, waiting: Any) -> None:
        """Lets the threads go on that wait at a barrier where as many have arrived as it is for."""
        for name in np.unique(self.at_barrier[waiting]):
            there = np.flatnonzero(waiting & (self.at_barrier == name))
            if len(there) >= self.needed[there[0]]:
                waiting[there] = False
                if len(there) == self.n:
                    self.barrier()
                else:
                    self.clocks.barrier(self.first + np.unique(there // WARP))
                    self.refresh()

    def run(self) -> Iterator[str]:
        """Runs to the end. Yields where another block may go on: "poll" after an ordered load, "" elsewhere."""
        with_others = self.grid.switch > 0
        steps, R, limit, counts = self.program.steps, self.R, self.grid.limit, self.grid.counts
        pc = np.zeros(self.n, np.int64)
        # Threads at a barrier, at an mbarrier whose phase is not over, at their end.
        waiting, asleep, done = (np.zeros(self.n, np.bool_) for _ in range(3))
        seen = self.bulk.changes
        total = 0
        while True:
            ready = ~(waiting | asleep | done)
            if not ready.any():
                if done.all():
                    self._finish(total)
                    return
                if asleep.any() and (self.bulk.changes != seen or self.bulk.deliver()):
                    seen, asleep[:] = self.bulk.changes, False
                    continue
                stuck = steps[pc[asleep][0] if asleep.any() else pc[waiting][0] - 1].it
                others = f"{done.sum()} threads of the block have ended, {asleep.sum()} wait for a phase"
                raise HangError(f"threads of block {self.index} wait for what no one will do, at {stuck}: {others}")
            at = int(pc[ready].min())
            mask = ready & (pc == at)
            ahead = pc[ready & ~mask]
            stop = int(ahead.min()) if ahead.size else len(steps)
            if mask.all():
                mask = None
            try:
                while at != stop:
                    step = steps[at]
                    total += 1
                    counts[at] += 1
                    taken = mask
                    if step.guard is not None:
                        taken = self._guarded(R[step.guard], step.negated, mask)
                        if taken is False:
                            at += 1
                            continue
                    if not step.kind:
                        step.run(self, taken)  # type: ignore[misc]
                        at += 1
                        continue
                    if total > limit:
                        self._too_many(step.it)
                        return
                    kind = step.kind
                    if kind == "branch":
                        if taken is mask or (mask is not None and (taken == mask).all()):
                            at = step.target
                            if mask is None:
                                continue
                            pc[mask] = at  # others may be behind the target
                        else:
                            pc[self.lanes(mask)] = at + 1
                            pc[taken] = step.target
                        break
                    if kind == "barrier":
                        if taken is None and not step.target:
                            self.barrier()
                            at += 1
                            if with_others and self.grid.turn(1.0):
                                yield ""
                            continue
                        pc[self.lanes(mask)] = at + 1
                        lanes = self.lanes(taken)
                        self.at_barrier[lanes], self.needed[lanes] = 0, self.n
                        if step.run is not None:
                            step.run(self, taken)
                        waiting[lanes] = True
                        self.open_barriers(waiting)
                        if with_others:
                            yield ""
                        break
                    if kind == "wait":
                        vain = step.run(self, taken)  # type: ignore[misc]
                        at += 1
                        if len(vain):
                            pc[self.lanes(mask)] = at
                            pc[vain], asleep[vain] = at - 1, True
                            break
                        continue
                    if kind == "exit":
                        pc[self.lanes(mask)] = at + 1
                        done[self.lanes(taken)] = True
                        break
                    step.run(self, taken)  # type: ignore[misc]
                    at += 1
                    if with_others and (kind != "memory" or self.grid.turn(0.25)):
                        yield "poll" if kind == "poll" else ""
                else:
                    pc[self.lanes(mask)] = at
            except (AttributeError, TypeError) as error:
                slots = (*steps[at].reads, steps[at].guard)
                if all(slot is None or R[slot] is not None for slot in slots):
                    raise
                raise UndefinedRegisterError(f"a register that nothing has written is read at {steps[at].it}") from error

    def _guarded(self, predicate: Bits, negated: bool, mask: Any) -> Any:
        """Which threads pass a guard: as `mask`, or False where none does."""
        if negated:
            predicate = ~predicate
        if mask is not None:
            predicate = predicate & mask
        count = np.count_nonzero(predicate)
        if count == len(predicate):
            return None
        if not count:
            return False
        if mask is not None and count == np.count_nonzero(mask):
            return mask
        return predicate

    def _finish(self, total: int) -> None:
        self.copies.finish()
        self.bulk.finish()
        for products in self.products:
            products.finish()
        self.grid.report.instructions += total

    def _too_many(self, it: Instruction) -> None:
        if self.grid.tracked:
            raise HangError(f"block {self.index} has not ended after {self.grid.limit} instructions, at {it}")
        self.grid.report.stopped = True
