"""Matrix products of a warp (mma.sync), and its loads and stores of 8x8 matrices (ldmatrix, stmatrix).

Where each thread holds what of a matrix: "Matrix Fragments" of the PTX manual. Products of 16-bit floats and TF32 are exact in
float32; they are added up in float32 here, in the hardware with fewer digits and in an order that NVIDIA does not say.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from kernels.verification.ptx.errors import NotCoveredError
from kernels.verification.ptx.steps import Layout, Step
from kernels.verification.ptx.text import Instruction
from kernels.verification.ptx.values import Bits, from_bf16

if TYPE_CHECKING:
    from kernels.verification.ptx.block import Block

LANE = np.arange(32)
GROUP, WITHIN = LANE >> 2, LANE & 3  # "groupID" and "threadID_in_group" of the manual
# Of the four registers of a result, which elements of its 16 rows of 8 the threads hold.
RESULT = [(GROUP + 8 * (r >> 1)) * 8 + 2 * WITHIN + (r & 1) for r in range(4)]
SHAPES = {"f16": ("m16n8k16", "m16n8k8"), "bf16": ("m16n8k16", "m16n8k8"), "tf32": ("m16n8k8", "m16n8k4")}


def elements(words: Bits, kind: str) -> Bits:
    """Words of 32 bits as float32, [..., 1 or 2]: the elements in each."""
    if kind == "tf32":
        return (words & np.uint32(0xFFFFE000)).view(np.float32)[..., None]
    pairs = np.ascontiguousarray(words).view(np.uint16).reshape(*words.shape, 2)
    return pairs.view(np.float16).astype(np.float32) if kind == "f16" else from_bf16(pairs)


@functools.cache
def _places(registers: int, per: int, columns_first: bool) -> Bits:
    """Where the elements of A, [16, depth], or B, [depth, 8], are among those of a warp's registers, [registers, 32, per]."""
    index = np.arange(registers * 32 * per).reshape(registers, 32, per)
    if columns_first:
        places = np.empty((4 * per * registers, 8), np.int64)
        for r in range(registers):
            for e in range(per):
                places[per * WITHIN + 4 * per * r + e, GROUP] = index[r, :, e]
        return places
    half = 4 * per  # columns of two registers
    places = np.empty((16, half * (registers // 2)), np.int64)
    for r in range(registers):
        for e in range(per):
            places[GROUP + 8 * (r & 1), per * WITHIN + half * (r >> 1) + e] = index[r, :, e]
    return places


def _gathered(words: Bits, kind: str, columns_first: bool) -> Bits:
    found = elements(words, kind)
    registers, warps, _, per = found.shape
    return found.swapaxes(0, 1).reshape(warps, -1).take(_places(registers, per, columns_first), axis=1)


def left(words: Bits, kind: str) -> Bits:
    """A, [warps, 16, depth], from the registers of its warps, [registers, warps, 32]."""
    return _gathered(words, kind, columns_first=False)


def right(words: Bits, kind: str) -> Bits:
    """B, [warps, depth, 8]."""
    return _gathered(words, kind, columns_first=True)


def product(program: Layout, it: Instruction) -> Step:
    """mma.sync of 16 x 8 tiles into float32."""
    kind = it.parts[-2]
    if it.parts[3] not in SHAPES.get(kind, ()) or it.parts[1:3] != ["sync", "aligned"]:
        raise NotCoveredError("a matrix product of this shape")
    if it.parts[4:] != ["row", "col", "f32", kind, kind, "f32"]:
        raise NotCoveredError("a matrix product of these types")
    d, a, b, c = (program.group(operand, 32) for operand in it.operands)

    def run(block: Block, mask: Any) -> None:
        block.whole_warps(mask, it)
        words = lambda slots: np.stack([block.full(s) for s in slots])
        total = left(words(a), kind) @ right(words(b), kind)
        before = words(c).view(np.float32)
        for places, to, addend in zip(RESULT, d, before, strict=True):
            part = total.reshape(-1, 128).take(places, axis=1) + addend
            block.write(to, part.reshape(-1).view(np.uint32), mask)

    return Step(it, run, reads=(*a, *b, *c))


def matrices(program: Layout, it: Instruction) -> Step:
    """ldmatrix and stmatrix: thread i of a warp names row i, and thread 4 r + c holds columns 2 c and 2 c + 1 of row r."""
    name, *modifiers = it.parts
    count = next((int(m[1:]) for m in modifiers if m in ("x1", "x2", "x4")), 0)
    unknown = set(modifiers) - {"sync", "aligned", "m8n8", f"x{count}", "trans", "shared", "shared::cta", "b16"}
    if unknown or not count or "m8n8" not in modifiers:
        raise NotCoveredError("matrices of this form")
    transposed, load = "trans" in modifiers, name == "ldmatrix"
    registers, where = it.operands if load else reversed(it.operands)
    slots = program.group(registers, 32)
    address, base = program.address(where, 32)
    program.access("shared", 16)

    def rows(block: Block, mask: Any) -> tuple[Any, Any, Bits]:
        """Warps, threads and addresses."""
        warps = block.whole_warps(mask, it)
        at = np.broadcast_to(address(block), (block.n,)).reshape(-1, 32)[warps, : 8 * count].reshape(-1)
        return warps, block.all_lanes.reshape(-1, 32)[warps, : 8 * count].reshape(-1), at

    def load_them(block: Block, mask: Any) -> None:
        warps, lanes, at = rows(block, mask)
        words = block.shared.load(block, lanes, at, 4, 4, it)
        halves = np.ascontiguousarray(words.T).view(np.uint16).reshape(len(warps), count, 8, 8)
        if transposed:
            halves = np.swapaxes(halves, 2, 3)
        held = np.ascontiguousarray(halves).view(np.uint32).reshape(len(warps), count, 32)
        for i, slot in enumerate(slots):
            block.place(slot, held[:, i].reshape(-1), block.lanes(mask), mask)

    def store_them(block: Block, mask: Any) -> None:
        warps, lanes, at = rows(block, mask)
        held = np.stack([block.full(slot)[warps] for slot in slots], 1)
        halves = np.ascontiguousarray(held).view(np.uint16).reshape(len(warps), count, 8, 8)
        if transposed:
            halves = np.swapaxes(halves, 2, 3)
        words = np.ascontiguousarray(halves).view(np.uint32).reshape(-1, 4)
        block.shared.store(block, lanes, at, np.ascontiguousarray(words.T), it)

    return Step(it, load_them if load else store_them, reads=(base, *([] if load else slots)))
