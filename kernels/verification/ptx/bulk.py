"""Copies of whole tiles by the hardware (TMA, cp.async.bulk.tensor), and the barriers in shared memory that tell of them.

What a load brings is poison until the phase of its barrier is over, and only threads that have waited for that phase may read
it. Loads arrive as late as they can, in an order drawn from the launch's seed: when no thread can go on without one. A store
reads shared memory until it is waited for. Where a tile hangs over the edge of its array, loads give zeros there and stores
write nothing, as the manual has it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from kernels.verification.ptx.clocks import CLOCK_SHIFT, WARP_SHIFT
from kernels.verification.ptx.copies import ON_ITS_WAY
from kernels.verification.ptx.errors import ExecutionError, NotCoveredError
from kernels.verification.ptx.memory import POISON, Array
from kernels.verification.ptx.steps import Layout, Step
from kernels.verification.ptx.text import Instruction
from kernels.verification.ptx.values import Bits

if TYPE_CHECKING:
    from kernels.verification.ptx.block import Block


@dataclasses.dataclass(frozen=True)
class TensorMap:
    """What a descriptor says (CUtensorMap): an array seen as a tensor, and the box that one copy takes of it.

    Attributes:
      sizes, strides, box: of each dimension, the slowest first; strides in elements.
      element: bytes.
      span: bytes of a row in shared memory whose 16-byte parts are interleaved (swizzled); 16 for none.
    """

    array: Array
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    element: int
    span: int

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.box)) * self.element

    def elements(self, at: tuple[int, ...]) -> tuple[Bits, Bits]:
        """Of the box at these coordinates: the place of each element in the array, and whether it is inside the tensor."""
        places, inside = np.zeros(self.box, np.int64), np.ones(self.box, np.bool_)
        for axis, (start, count) in enumerate(zip(at, self.box, strict=True)):
            index = start + np.arange(count).reshape([-1 if a == axis else 1 for a in range(len(self.box))])
            places = places + index * self.strides[axis]
            inside = inside & (index >= 0) & (index < self.sizes[axis])
        return places.reshape(-1), inside.reshape(-1)

    def shared(self, start: int) -> Bits:
        """Where in shared memory the elements of a box that begins there lie."""
        at = start + np.arange(self.nbytes // self.element) * self.element
        return at ^ (((at >> 7) & (self.span // 16 - 1)) << 4)


@dataclasses.dataclass
class Barrier:
    """An mbarrier: a phase ends when `count` threads have arrived and as many bytes as they announced.

    Attributes:
      known, over: what those knew who arrived in this phase, and in the one before.
    """

    count: int
    known: Any
    over: Any
    arrived: int = 0
    missing: int = 0  # bytes
    phase: int = 0


@dataclasses.dataclass(frozen=True)
class Tile:
    """A copy that is under way; `where` are addresses in shared memory, `lane` is the thread that asked for it."""

    map: TensorMap
    at: tuple[int, ...]
    where: Bits
    barrier: int
    lane: int
    group: int
    it: Instruction


class Bulk:
    """The barriers of a block, and its copies under way."""

    def __init__(self, block: Block):
        self.block = block
        self.barriers: dict[int, Barrier] = {}
        self.loads: list[Tile] = []
        self.stores: list[Tile] = []
        self.groups = np.zeros(block.n, np.int64)  # of each thread, how many groups of stores it has closed
        self.changes = 0

    # Barriers

    def nothing_known(self) -> Any:
        return np.zeros(len(self.block.clocks.own), np.int64)

    def of(self, address: int, it: Instruction) -> Barrier:
        if address not in self.barriers:
            raise ExecutionError(f"no barrier was made at {address:#x}, at {it}")
        return self.barriers[address]

    def arrive(self, address: int, lane: int, count: int, announced: int, it: Instruction) -> None:
        barrier, clocks, warp = self.of(address, it), self.block.clocks, self.block.first + lane // 32
        barrier.known = np.maximum(barrier.known, clocks.known[warp])
        barrier.missing += announced
        barrier.arrived += count
        self._close(barrier)

    def _close(self, barrier: Barrier) -> None:
        if barrier.arrived > barrier.count:
            raise ExecutionError(f"{barrier.arrived} arrivals at a barrier for {barrier.count}")
        if barrier.arrived == barrier.count and not barrier.missing:
            barrier.phase += 1
            barrier.arrived, barrier.over, barrier.known = 0, barrier.known, self.nothing_known()
            self.changes += 1

    # Loads

    def load(self, tile: Tile) -> None:
        block, lanes = self.block, np.full(len(tile.where), tile.lane)
        element = tile.map.element
        ((array, _, at),) = block.shared.find(block, lanes, tile.where.astype(np.uint64), element, tile.it, True)
        if array.shadow is not None:
            event = block.events(lanes, tile.it)
            block.shared.note_write(block, array, at, element, event, lanes, tile.it)
            array.shadow.place(array.shadow.writes, at, element, event | ON_ITS_WAY)
            if array.shadow.fences is not None:
                array.shadow.place(array.shadow.fences, at, element, np.full(len(at), -1))
            array.view(1, element)[at // element] = POISON
        self.loads.append(tile)

    def deliver(self) -> bool:
        """Lets one load arrive; whether there was one."""
        if not self.loads:
            return False
        block = self.block
        tile = self.loads.pop(block.grid.random.randrange(len(self.loads)))
        places, inside = tile.map.elements(tile.at)
        element, source = tile.map.element, tile.map.array
        values = np.zeros(len(places), block.shared.arrays[0].view(element, 1).dtype)
        values[inside] = self._global(source, element, places[inside], tile.it)
        array = block.shared.arrays[0]
        at = tile.where - array.start
        array.view(element, 1)[at // element] = values
        barrier, clocks, agent = self.of(tile.barrier, tile.it), block.clocks, block.agent
        clocks.tick(agent)
        if array.shadow is not None:
            event = (int(clocks.own[agent]) << CLOCK_SHIFT) | (agent << WARP_SHIFT) | tile.it.number
            array.shadow.place(array.shadow.writes, at, element, np.full(len(at), event))
        barrier.known = np.maximum(barrier.known, clocks.known[agent])
        barrier.missing -= tile.map.nbytes
        self._close(barrier)
        return True

    def _global(self, array: Array, element: int, places: Bits, it: Instruction) -> Bits:
        if len(places) and (int(places.min()) < 0 or (int(places.max()) + 1) * element > array.nbytes):
            raise ExecutionError(f"the descriptor of {array.name} reaches past its {array.nbytes} bytes, at {it}")
        return array.view(element, 1)[places]

    # Stores

    def store(self, tile: Tile) -> None:
        array = self.block.shared.arrays[0]
        if array.shadow is not None:
            group = tile.lane // 128
            self.block.products[group].note(array.shadow, tile.where - array.start, tile.map.element, tile.it)
        self.stores.append(tile)

    def commit(self, lanes: Any) -> None:
        self.groups[lanes] += 1

    def wait(self, lanes: Any, left: int) -> None:
        """Ends the stores of these threads but for the last `left` groups of each."""
        over = lambda tile: tile.lane in lanes and tile.group < self.groups[tile.lane] - left
        ended, self.stores = [s for s in self.stores if over(s)], [s for s in self.stores if not over(s)]
        block, array = self.block, self.block.shared.arrays[0]
        for tile in ended:
            element, at = tile.map.element, tile.where - array.start
            if array.shadow is not None and array.shadow.reads is not None:
                event = block.events(np.full(len(at), tile.lane), tile.it)
                array.shadow.place(array.shadow.reads, at, element, event)
            places, inside = tile.map.elements(tile.at)
            if not inside.any():
                continue
            target, lane = tile.map.array, np.full(int(inside.sum()), tile.lane)
            self._global(target, element, places[inside], tile.it)
            if not target.writable:
                raise ExecutionError(f"a write to {target.name}, at {tile.it}")
            if target.shadow is not None:
                event = block.events(lane, tile.it)
                block.grid.memory.note_write(block, target, places[inside] * element, element, event, lane, tile.it)
            target.view(element, 1)[places[inside]] = array.view(element, 1)[at // element][inside]

    def finish(self) -> None:
        for tile in (*self.loads, *self.stores):
            self.block.tell(tile.it)("a copy of a tile that is never waited for", -1)


def barrier(program: Layout, it: Instruction) -> Step:
    """mbarrier: init, arrive, arrive.expect_tx and try_wait.parity."""
    action = it.parts[1]
    if not {"shared", "shared::cta"} & set(it.parts) or it.parts[-1] != "b64":
        raise NotCoveredError("a barrier of this form")
    program.access("shared", 8)
    if action == "try_wait" and it.parts[2] == "parity":
        return _wait(program, it)
    to = None if action == "init" else it.operands[0]
    where, *given = it.operands if action == "init" else it.operands[1:]
    address, base = program.address(where, 32)
    number = program.slot(given[0], 32) if given else None
    announces = "expect_tx" in it.parts
    known = {"mbarrier", action, "expect_tx", "shared", "shared::cta", "release", "cta", "b64"}
    if action not in ("init", "arrive") or set(it.parts) - known or (action == "init" and number is None):
        raise NotCoveredError("a barrier of this form")
    result = None if to is None or to == "_" else program.slot(to, 64)

    def run(block: Block, mask: Any) -> None:
        lanes, where = block.lanes(mask), block.spread(address(block), mask)
        counts = np.ones(len(lanes), np.int64) if number is None else block.spread(block.R[number], mask)
        block.note_barrier(lanes, where, it, made=action == "init")
        for lane, at, count in zip(lanes.tolist(), where.tolist(), counts.tolist(), strict=True):
            if action == "init":
                block.bulk.barriers[at] = Barrier(count, block.bulk.nothing_known(), block.bulk.nothing_known())
            elif announces:
                block.bulk.arrive(at, lane, 1, count, it)
            else:
                block.bulk.arrive(at, lane, count, 0, it)
        block.tick(lanes)
        if result is not None:
            block.write(result, np.zeros(1, np.uint64), mask)

    return Step(it, run, reads=(base, *([] if number is None else [number])))


def _wait(program: Layout, it: Instruction) -> Step:
    to, (address, base) = program.slot(it.operands[0], 1), program.address(it.operands[1], 32)
    parity = program.slot(it.operands[2], 32)

    def run(block: Block, mask: Any) -> Any:
        """The threads whose phase is not over."""
        lanes, where = block.lanes(mask), block.spread(address(block), mask)
        block.note_barrier(lanes, where, it, made=False)
        wanted = block.spread(block.R[parity], mask) & 1
        over = np.zeros(len(lanes), np.bool_)
        for i, (lane, at) in enumerate(zip(lanes.tolist(), where.tolist(), strict=True)):
            found = block.bulk.of(at, it)
            over[i] = found.phase % 2 != wanted[i]
            if over[i]:
                warp = block.first + lane // 32
                np.maximum(block.clocks.known[warp], found.over, out=block.clocks.known[warp])
        block.place(to, over, lanes, mask)
        return lanes[~over]

    return Step(it, run, "wait", reads=(base, parity))


def copy(program: Layout, it: Instruction) -> Step:
    """cp.async.bulk: tiles both ways, commit_group and wait_group."""
    if it.opcode == "cp.async.bulk.commit_group":
        return Step(it, lambda block, mask: block.bulk.commit(block.lanes(mask)))
    if it.opcode in ("cp.async.bulk.wait_group", "cp.async.bulk.wait_group.read"):
        left = int(it.operands[0])
        return Step(it, lambda block, mask: block.bulk.wait(set(block.lanes(mask).tolist()), left))
    # A cluster of one block, which every block here is, has no shared memory but the block's.
    load = it.parts[5] in ("shared::cluster", "shared::cta") and it.parts[6:] == ["global", "mbarrier::complete_tx::bytes"]
    store = it.parts[5:] == ["global", "shared::cta", "bulk_group"]
    if it.parts[3] != "tensor" or not (load or store):
        raise NotCoveredError("a copy of this form")
    inside, tensor = it.operands[:2] if load else (it.operands[1], it.operands[0])
    written, _, listed = tensor.strip("[] ").partition(",")
    address, base = program.address(inside, 32)
    descriptor = program.slot(written.strip(), 64)
    coordinates = program.group(listed.strip(), 32)
    told, told_base = program.address(it.operands[2], 32) if load else (None, None)
    program.access("shared", 2)
    program.access("global", 2)

    def run(block: Block, mask: Any) -> None:
        lanes = block.lanes(mask)
        spread = lambda value: block.spread(value, mask).tolist()
        starts, maps = spread(address(block)), spread(block.R[descriptor])
        barriers = spread(told(block)) if told is not None else [0] * len(lanes)
        places = [spread(block.R[slot].view(np.int32)) for slot in reversed(coordinates)]
        for lane, start, name, barrier_at, *at in zip(lanes.tolist(), starts, maps, barriers, *places, strict=True):
            found = block.grid.tensor_maps.get(name)
            if found is None:
                raise ExecutionError(f"no descriptor is at {name:#x}, at {it}")
            tile = Tile(found, tuple(at), found.shared(start), barrier_at, lane, int(block.bulk.groups[lane]), it)
            block.bulk.load(tile) if load else block.bulk.store(tile)

    reads = (base, descriptor, *coordinates, *([] if told_base is None else [told_base]))
    return Step(it, run, "memory", reads=reads)


def elect(program: Layout, it: Instruction) -> Step:
    """elect.sync: one thread of each warp, the first that takes part."""
    leader, _, chosen = it.operands[0].partition("|")
    results = None if leader == "_" else program.slot(leader, 32), program.slot(chosen, 1)

    def run(block: Block, mask: Any) -> None:
        block.whole_warps(mask, it)
        if results[0] is not None:
            block.write(results[0], np.zeros(1, np.uint32), mask)
        block.write(results[1], block.all_lanes % 32 == 0, mask)

    return Step(it, run)
