"""Matrix products of four warps at a time (wgmma, compute capability 9.0), which run on their own until they are waited for.

Until the wait their results are poison, and what they read in shared memory must not be written. They see shared memory through
the asynchronous proxy: a store needs fence.proxy.async before a product may read it, and registers that a product reads or adds
to need wgmma.fence.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kernels.verification.ptx.clocks import CLOCK_SHIFT, INSTRUCTIONS, NOBODY, UNDER_WAY, WARP_SHIFT, warps_of
from kernels.verification.ptx.errors import DivergenceError, NotCoveredError
from kernels.verification.ptx.shadow import Shadow
from kernels.verification.ptx.steps import Layout, Step
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
    """Those of four warps, `number` among the block's, that are under way."""

    def __init__(self, block: Block, number: int):
        self.block, self.number, self.group = block, number, 0
        self.lanes = slice(GROUP_THREADS * number, GROUP_THREADS * (number + 1))
        self.results: dict[int, tuple[Bits, int, Instruction]] = {}  # register -> value, group, who asked for it
        self.readings: list[Reading] = []
        # What registers held at the last fence, or have been given by products since; by identity, so that it may move between
        # registers, as compilers have it move in front of a product.
        self.fenced: dict[int, Any] = {}

    def fence(self) -> None:
        self.fenced = {id(value): value for value in self.block.R}

    def require_fence(self, slots: Sequence[int], it: Instruction) -> None:
        """Tells where one of these registers holds what was computed since the last fence, and by no product."""
        if not all(id(self.block.R[slot]) in self.fenced for slot in slots):
            self.block.tell(it)("no wgmma.fence between a write to a register and wgmma", -1)

    def commit(self) -> None:
        self.group += 1

    def before(self, slot: int) -> Bits:
        """What a register will hold when the products before have been added to it."""
        if slot in self.results:
            return self.results[slot][0]
        value = self.block.R[slot]
        return value if len(value) == 1 else value[self.lanes]

    def _set(self, slot: int, value: Bits) -> None:
        block = self.block
        before, full = block.R[slot], value
        if block.n != GROUP_THREADS:
            full = np.empty(block.n, np.uint32)
            full[:] = UNDECIDED if before is None else before
            full[self.lanes] = value
        block.R[slot] = full
        for products in block.products:
            if products is self or id(before) in products.fenced:
                products.fenced[id(full)] = full

    def start(self, slot: int, value: Bits, it: Instruction) -> None:
        if slot not in self.results:
            self._set(slot, UNDECIDED)
        self.results[slot] = value, self.group, it

    def wait(self, left_over: int, it: Instruction) -> None:
        """Waits for all groups but the last `left_over`."""
        block, through = self.block, self.group - left_over
        if any(group >= self.group for _, group, _ in self.results.values()):
            block.tell(it)("products that are waited for before they are committed", -1)
        for slot in [slot for slot, (_, group, _) in self.results.items() if group < through]:
            self._set(slot, self.results.pop(slot)[0])
        shadow = block.shared.arrays[0].shadow
        if shadow is not None and shadow.reads is not None:
            ended = [r for r in self.readings if r.group < through]
            self.readings = [r for r in self.readings if r.group >= through]
            for mark, readings in ((0, ended), (UNDER_WAY << CLOCK_SHIFT, self.readings)):
                for reading in readings:
                    shadow.place(shadow.reads, reading.at, reading.size, np.full(len(reading.at), mark | reading.event))

    def read(self, operand: Operand, it: Instruction) -> Bits:
        """Reads an operand in shared memory for a product: words, [rows, depth]."""
        block, size = self.block, operand.size
        lanes = np.full(len(operand.touched), GROUP_THREADS * self.number)
        ((array, _, at),) = block.shared.find(block, lanes, operand.touched, size, it, False)
        if array.shadow is not None:
            self.readings.append(Reading(self.group, at, size, self.note(array.shadow, at, size, it)))
        return array.view(size, 1).take((operand.where - array.start) // size)

    def note(self, shadow: Shadow, at: Bits, size: int, it: Instruction) -> int:
        """Notes what an asynchronous instruction reads of shared memory from now on; the event of the reading."""
        block, tell = self.block, self.block.tell(it)
        warps = np.arange(block.first + GROUP_WARPS * self.number, block.first + GROUP_WARPS * (self.number + 1))
        before = shadow.rows(shadow.writes, at, size).reshape(-1)
        if int(before.max()) >= block.recent("shared"):
            late = block.clocks.unordered(before[None], warps[:, None]).any(0)
            if late.any():
                other = int(before[late].max())
                state = "is still on its way" if other >> CLOCK_SHIFT >= UNDER_WAY else "is not ordered before it"
                tell(f"shared race: {it.parts[0]} reads what {state}", other % INSTRUCTIONS)
        if int(before.min()) == NOBODY:
            tell("shared read of what nobody wrote", -1)
        assert shadow.fences is not None
        fences = shadow.rows(shadow.fences, at, size).reshape(-1)
        if int(fences.max()) >= int(block.fences.min()):
            writers = np.clip(warps_of(before) - block.first, 0, block.warps - 1)
            unfenced = (before > 0) & (fences >= 0) & (block.fences[writers] <= fences)
            if unfenced.any():
                tell(f"no fence.proxy.async between a store and {it.parts[0]}", int(before[unfenced].max()) % INSTRUCTIONS)
        event = (int(block.clocks.own[warps[0]]) << CLOCK_SHIFT) | (int(warps[0]) << WARP_SHIFT) | it.number
        if shadow.reads is None:
            shadow.begin_reads()
        assert shadow.reads is not None
        shadow.place(shadow.reads, at, size, np.full(len(at), (UNDER_WAY << CLOCK_SHIFT) | event))
        return event

    def finish(self) -> None:
        for _, _, it in self.results.values():
            self.block.tell(it)("a product that is never waited for", -1)


def decode(program: Layout, it: Instruction) -> Step:
    action = it.parts[1]
    if action == "mma_async":
        return _product(program, it)
    left_over = int(it.operands[0]) if action == "wait_group" else 0
    if action not in ("fence", "commit_group", "wait_group"):
        raise NotCoveredError("an instruction of this form")

    def run(block: Block, mask: Any) -> None:
        for products in _taking_part(block, mask, it):
            if action == "fence":
                products.fence()
            elif action == "commit_group":
                products.commit()
            else:
                products.wait(left_over, it)

    return Step(it, run)


def _taking_part(block: Block, mask: Any, it: Instruction) -> list[Products]:
    """Those of the groups of four warps that take part; each must with all of its threads."""
    if mask is None:
        return block.products
    groups = mask.reshape(-1, GROUP_THREADS)
    if (groups.any(1) != groups.all(1)).any():
        raise DivergenceError(f"four warps of block {block.index} are divided at {it}")
    return [products for products, here in zip(block.products, groups.all(1), strict=True) if here]


def _product(program: Layout, it: Instruction) -> Step:
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
        groups = _taking_part(block, mask, it)
        for products in groups:
            products.require_fence([*d, *(a if in_registers else ())], it)
        for products in groups:
            one_group(block, products)

    def one_group(block: Block, products: Products) -> None:
        def operand(slot: int, rows: int, turn: int) -> Bits:
            descriptor = block.R[slot] if len(block.R[slot]) == 1 else block.R[slot][products.lanes]
            if (descriptor != descriptor[0]).any():
                raise DivergenceError(f"a matrix descriptor differs between threads: {it}")
            words = products.read(described(int(descriptor[0]), rows, depth, size, bool(turn)), it)
            if size == 4:
                return elements(words, kind)[..., 0]
            pairs = np.ascontiguousarray(words).view(np.uint32)
            return elements(pairs, kind).reshape(words.shape)

        if in_registers:
            warps = slice(GROUP_WARPS * products.number, GROUP_WARPS * (products.number + 1))
            first = left(np.stack([block.full(s)[warps] for s in a]), kind).reshape(64, depth)
        else:
            first = operand(a[0], 64, turn_a)
        total = (first @ operand(b, columns, turn_b).T).reshape(GROUP_WARPS, 16 * columns)
        adds = block.R[scale] if len(block.R[scale]) == 1 else block.R[scale][products.lanes]
        adding = bool(adds.any())
        for places, slot in zip(held, d, strict=True):
            part = total.take(places, axis=1).reshape(-1)
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
