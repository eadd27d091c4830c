"""Matrix products of four warps at a time (wgmma, compute capability 9.0), which run on their own until they are waited for.

Until the wait their results are poison, and what they read in shared memory must not be written. They see shared memory through
the asynchronous proxy: a store needs fence.proxy.async before a product may read it, and registers that a product reads or adds
to need wgmma.fence.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kernels.verification.ptx.clocks import CLOCK_SHIFT, INSTRUCTIONS, NOBODY, UNDER_WAY, WARP_SHIFT, warps_of
from kernels.verification.ptx.errors import DivergenceError, NotCoveredError
from kernels.verification.ptx.program import Program, Step
from kernels.verification.ptx.shadow import Shadow
from kernels.verification.ptx.tensor_cores import GROUP, WITHIN, elements, left
from kernels.verification.ptx.text import Instruction
from kernels.verification.ptx.values import Bits

if TYPE_CHECKING:
    from kernels.verification.ptx.block import Block

GROUP_THREADS, GROUP_WARPS = 128, 4
UNDECIDED = np.array([0x7FFFBAD0], np.uint32)  # a NaN: what a register holds whose product is under way
SPANS = {0: 16, 1: 128, 2: 64, 3: 32}  # bytes of a row, by the descriptor's kind of swizzling


class Reading(NamedTuple):
    """Bytes of shared memory that a product reads, until its group is waited for."""

    group: int
    at: Bits
    size: int
    event: int


class Operand(NamedTuple):
    """A matrix in shared memory: the address of each element, [rows, depth], and all addresses once, in order."""

    where: Bits
    touched: Bits
    size: int


class Products:
    """Those of a block that are under way."""

    def __init__(self, block: Block):
        self.block, self.group, self.fenced = block, 0, False
        self.results: dict[int, tuple[Bits, int, Instruction]] = {}  # register -> value, group, who asked for it
        self.readings: list[Reading] = []

    def fence(self) -> None:
        self.fenced = True

    def commit(self) -> None:
        self.group += 1

    def before(self, slot: int) -> Bits:
        """What a register will hold when the products before have been added to it."""
        return self.results[slot][0] if slot in self.results else self.block.R[slot]

    def start(self, slot: int, value: Bits, it: Instruction) -> None:
        self.results[slot] = value, self.group, it
        self.block.R[slot] = UNDECIDED

    def wait(self, left_over: int, it: Instruction) -> None:
        """Waits for all groups but the last `left_over`."""
        block, through = self.block, self.group - left_over
        if any(group >= self.group for _, group, _ in self.results.values()):
            block.tell(it)("products that are waited for before they are committed", -1)
        for slot in [slot for slot, (_, group, _) in self.results.items() if group < through]:
            block.R[slot] = self.results.pop(slot)[0]
        shadow = block.shared.arrays[0].shadow
        if shadow is not None and shadow.reads is not None:
            ended = [r for r in self.readings if r.group < through]
            self.readings = [r for r in self.readings if r.group >= through]
            for mark, readings in ((0, ended), (UNDER_WAY << CLOCK_SHIFT, self.readings)):
                for reading in readings:
                    shadow.place(shadow.reads, reading.at, reading.size, np.full(len(reading.at), mark | reading.event))
        self.fenced = False

    def read(self, group: int, operand: Operand, it: Instruction) -> Bits:
        """Reads shared memory for a product of the warps of `group`: an operand as words, [rows, depth]."""
        block, size = self.block, operand.size
        lanes = np.full(len(operand.touched), GROUP_THREADS * group)
        ((array, _, at),) = block.shared.find(block, lanes, operand.touched, size, it, False)
        if array.shadow is not None:
            self._note(group, array.shadow, at, size, it)
        return array.view(size, 1).take((operand.where - array.start) // size)

    def _note(self, group: int, shadow: Shadow, at: Bits, size: int, it: Instruction) -> None:
        block, tell = self.block, self.block.tell(it)
        warps = np.arange(block.first + GROUP_WARPS * group, block.first + GROUP_WARPS * (group + 1))
        before = shadow.rows(shadow.writes, at, size).reshape(-1)
        if int(before.max()) >= block.recent("shared"):
            late = block.clocks.unordered(before[None], warps[:, None]).any(0)
            if late.any():
                tell("shared race: wgmma reads what is not ordered before it", int(before[late].max()) % INSTRUCTIONS)
        if int(before.min()) == NOBODY:
            tell("shared read of what nobody wrote", -1)
        assert shadow.fences is not None
        fences = shadow.rows(shadow.fences, at, size).reshape(-1)
        if int(fences.max()) >= int(block.fences.min()):
            writers = np.clip(warps_of(before) - block.first, 0, block.warps - 1)
            unfenced = (before > 0) & (fences >= 0) & (block.fences[writers] <= fences)
            if unfenced.any():
                tell("no fence.proxy.async between a store and wgmma", int(before[unfenced].max()) % INSTRUCTIONS)
        event = (int(block.clocks.own[warps[0]]) << CLOCK_SHIFT) | (int(warps[0]) << WARP_SHIFT) | it.number
        if shadow.reads is None:
            shadow.begin_reads()
        assert shadow.reads is not None
        shadow.place(shadow.reads, at, size, np.full(len(at), (UNDER_WAY << CLOCK_SHIFT) | event))
        self.readings.append(Reading(self.group, at, size, event))

    def finish(self) -> None:
        for _, _, it in self.results.values():
            self.block.tell(it)("a product that is never waited for", -1)


def decode(program: Program, it: Instruction) -> Step:
    action = it.parts[1]
    if action == "fence":
        return Step(it, lambda block, mask: _whole(block, mask, it).fence())
    if action == "commit_group":
        return Step(it, lambda block, mask: _whole(block, mask, it).commit())
    if action == "wait_group":
        left_over = int(it.operands[0])
        return Step(it, lambda block, mask: _whole(block, mask, it).wait(left_over, it))
    return _product(program, it)


def _whole(block: Block, mask: Any, it: Instruction) -> Products:
    if mask is not None:
        raise DivergenceError(f"not all threads of block {block.index} are at {it}")
    return block.products


def _product(program: Program, it: Instruction) -> Step:
    shape, kind = re.fullmatch(r"m64n(\d+)k(\d+)", it.parts[4]), it.parts[-1]
    if shape is None or it.parts[1:4] != ["mma_async", "sync", "aligned"] or it.parts[5:] != ["f32", kind, kind]:
        raise NotCoveredError("a matrix product of this form")
    if kind not in ("f16", "bf16", "tf32"):
        raise NotCoveredError(f"a matrix product of .{kind}")
    columns, depth = int(shape[1]), int(shape[2])
    size = 4 if kind == "tf32" else 2
    d = program.group(it.operands[0], 32)
    in_registers = it.operands[1].startswith("{")
    a = program.group(it.operands[1], 32) if in_registers else [program.slot(it.operands[1], 64)]
    b, scale = program.slot(it.operands[2], 64), program.slot(it.operands[3], 1)
    program.access("shared", size)
    flags = [int(o) for o in it.operands[4:]]
    if flags[:2] != [1, 1] or len(d) != columns // 2:
        raise NotCoveredError("a negated operand")
    turned = flags[2:] if size == 2 else [0, 0]
    turn_a, turn_b = (0, *turned) if in_registers and size == 2 else turned

    # Of each register, which elements of a warp's 16 rows its threads hold.
    held = [
        (GROUP + 8 * ((r >> 1) & 1)) * columns + 8 * (r >> 2) + 2 * WITHIN + (r & 1) for r in range(len(d))
    ]  # fmt: skip

    def run(block: Block, mask: Any) -> None:
        products = _whole(block, mask, it)
        if not products.fenced:
            block.tell(it)("wgmma without wgmma.fence", -1)

        def operand(slot: int, group: int, rows: int, turn: int) -> Bits:
            descriptor = block.R[slot]
            if len(descriptor) > 1:
                descriptor = descriptor[GROUP_THREADS * group : GROUP_THREADS * (group + 1)]
            if (descriptor != descriptor[0]).any():
                raise DivergenceError(f"a matrix descriptor differs between threads: {it}")
            words = products.read(group, described(int(descriptor[0]), rows, depth, size, bool(turn)), it)
            if size == 4:
                return elements(words, kind)[..., 0]
            pairs = np.ascontiguousarray(words).view(np.uint32)
            return elements(pairs, kind).reshape(words.shape)

        totals = []
        for group in range(block.warps // GROUP_WARPS):
            if in_registers:
                words = np.stack([block.full(s)[GROUP_WARPS * group : GROUP_WARPS * (group + 1)] for s in a])
                first = left(words, kind).reshape(64, depth)
            else:
                first = operand(a[0], group, 64, turn_a)
            totals.append(first @ operand(b, group, columns, turn_b).T)
        tiles = np.stack(totals).reshape(-1, 16 * columns)
        adds, adding = block.R[scale], bool(block.R[scale].any())
        for places, slot in zip(held, d, strict=True):
            part = tiles.take(places, axis=1).reshape(-1)
            if adding:
                part = np.where(adds, part + products.before(slot).view(np.float32), part)
            products.start(slot, part.view(np.uint32), it)

    return Step(it, run, reads=(*a, b, scale))


@functools.lru_cache(maxsize=1024)
def described(descriptor: int, rows: int, depth: int, size: int, transposed: bool) -> Operand:
    """The operand that a matrix descriptor of the manual names.

    Args:
      rows: of A, or columns of B.
      size: bytes of an element.
      transposed: whether rows, not the depth, are contiguous.
    """
    part = lambda at, bits: (descriptor >> at) & ((1 << bits) - 1)
    start, leading, stride = part(0, 14) << 4, part(16, 14) << 4, part(32, 14) << 4
    if part(49, 3):
        raise NotCoveredError("a base offset in a matrix descriptor")
    span = SPANS[part(62, 2)]
    row, k = np.arange(rows)[:, None], np.arange(depth)[None, :] * (1 if transposed else size)
    if transposed:  # tiles of 8 of the depth by `span` bytes of rows
        r = row * size
        near, far = (leading, stride) if span > 16 else (stride, leading)
        at = start + (r // span) * near + (k // 8) * far + (k % 8) * span + r % span
    else:  # tiles of 8 rows by `span` bytes of the depth
        at = start + (row // 8) * stride + (row % 8) * span + k % span
        if span == 16:
            at = at + (k // 16) * leading
        elif depth * size > span:
            raise NotCoveredError("a matrix operand wider than its swizzled row")
    where = at ^ (((at >> 7) & (span // 16 - 1)) << 4)
    return Operand(where, np.unique(where).astype(np.uint64), size)
