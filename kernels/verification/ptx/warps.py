"""What the threads of a warp do together: shuffles and reductions. Also comparisons of two halves at once."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from kernels.verification.ptx import arithmetic, floats
from kernels.verification.ptx.errors import NotCoveredError
from kernels.verification.ptx.steps import Layout, Step
from kernels.verification.ptx.text import Instruction
from kernels.verification.ptx.values import Bits, halves, kind

if TYPE_CHECKING:
    from kernels.verification.ptx.block import Block

ALL = np.uint32(0xFFFFFFFF)
LANE = np.arange(32)


def _require_all_lanes(block: Block, members: int, it: Instruction) -> None:
    if (block.R[members] != ALL).any():
        raise NotCoveredError(f"not covered: not all lanes of a warp: {it}")


def _sources(mode: str, offset: Bits, limits: Bits) -> tuple[Bits, Bits]:
    """From which lane each lane takes, and whether that is inside its segment."""
    segment = (limits >> 8) & 31
    low = LANE & segment
    high = low | (limits & 31 & ~segment)
    if mode == "bfly":
        lane = LANE ^ offset
    elif mode == "idx":
        lane = low | (offset & 31 & ~segment)
    else:
        lane = LANE - offset if mode == "up" else LANE + offset
    valid = lane >= high if mode == "up" else lane <= high
    return np.where(valid, lane, LANE), valid


@functools.lru_cache(maxsize=1024)
def _uniform(mode: str, offset: int, limits: int) -> tuple[Bits, Bits]:
    return _sources(mode, np.array(offset), np.array(limits))


def shuffle(program: Layout, it: Instruction) -> Step:
    """shfl.sync: a value from another lane of the warp; its own where there is none such."""
    _, sync, mode, kind = it.parts
    if sync != "sync" or kind != "b32" or mode not in ("bfly", "idx", "up", "down"):
        raise NotCoveredError("a shuffle of this form")
    to, _, found = it.operands[0].partition("|")
    result, (source, by, clamp, members) = program.slot(to, 32), (program.slot(o, 32) for o in it.operands[1:])
    inside = program.slot(found, 1) if found else None

    def run(block: Block, mask: Any) -> None:
        block.whole_warps(mask, it)
        _require_all_lanes(block, members, it)
        distance, limits = block.R[by], block.R[clamp]
        if len(distance) == len(limits) == 1:  # the same for all threads, as it nearly always is
            lane, valid = _uniform(mode, int(distance[0]), int(limits[0]))
            taken = block.full(source).take(lane, axis=1).reshape(-1)
        else:
            lane, valid = _sources(mode, block.full(by).astype(np.int64), block.full(clamp).astype(np.int64))
            taken = np.take_along_axis(block.full(source), lane, 1).reshape(-1)
        block.write(result, taken, mask)
        if inside is not None:
            block.write(inside, np.resize(valid, block.n), mask)

    return Step(it, run, reads=(source, by, clamp, members))


def reduction(program: Layout, it: Instruction) -> Step:
    """redux.sync: one value of all lanes of a warp."""
    _, sync, action, *modifiers, type_ = it.parts
    floating = type_ == "f32" and action in ("min", "max")
    if sync != "sync" or not (floating or (type_ in ("u32", "s32", "b32") and not modifiers)):
        raise NotCoveredError("a reduction of this form")
    logic = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}
    if floating and set(modifiers) <= {"NaN"}:
        two = floats.extreme(action == "max", "NaN" in modifiers)
    elif not floating and action in {"add": 0, "min": 0, "max": 0, **logic}:
        two = {"add": np.add, "min": np.minimum, "max": np.maximum, **logic}[action]
    else:
        raise NotCoveredError("a reduction of this form")
    of = kind(type_)
    to, source, members = (program.slot(o, 32) for o in it.operands)

    def run(block: Block, mask: Any) -> None:
        block.whole_warps(mask, it)
        _require_all_lanes(block, members, it)
        lanes = of.numbers(block.full(source))
        total = functools.reduce(two, (lanes[:, i] for i in range(32)))
        block.write(to, np.repeat(of.bits(np.ascontiguousarray(total)), 32), mask)

    return Step(it, run, reads=(source, members))


def compare_halves(program: Layout, it: Instruction) -> Step | None:
    """setp of f16x2 or bf16x2 into two predicates; None for another setp."""
    if not it.parts[-1].endswith("x2"):
        return None
    operation = arithmetic.of(".".join([*it.parts[:-1], it.parts[-1][:-2]]))
    if operation is None or len(operation.sources) != 2 or "|" not in it.operands[0]:
        raise NotCoveredError("a comparison of this form")
    results = [program.slot(name, 1) for name in it.operands[0].split("|")]
    a, b = (program.slot(o, 32) for o in it.operands[1:])

    def run(block: Block, mask: Any) -> None:
        pairs = list(zip(halves(block.R[a]), halves(block.R[b]), strict=True))
        for to, (left, right) in zip(results, pairs, strict=True):
            block.write(to, operation.run(left, right), mask)

    return Step(it, run, reads=(a, b))
