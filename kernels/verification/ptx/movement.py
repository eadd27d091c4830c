"""Loads, stores, atomics, and moves between a register and several narrower ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kernels.verification.ptx import integers, text
from kernels.verification.ptx.errors import NotCoveredError
from kernels.verification.ptx.steps import Layout, Step
from kernels.verification.ptx.text import Instruction, width
from kernels.verification.ptx.values import FLOAT, SIGNED, UNSIGNED, Bits

if TYPE_CHECKING:
    from kernels.verification.ptx.block import Block

# Where in the caches a line goes: nothing here has caches.
_CACHES = {"ca", "cg", "cs", "cv", "wb", "wt", "lu", "nc", "L2::cache_hint"} | {
    f"L{level}::{what}"
    for level in (1, 2)
    for what in ("evict_last", "evict_first", "evict_normal", "evict_unchanged", "no_allocate", "64B", "128B", "256B")
}
_SPACES = {"global": "global", "shared": "shared", "shared::cta": "shared"}


def memory(program: Layout, it: Instruction) -> Step:
    """ld and st, of parameters, device memory and shared memory."""
    modifiers = it.parts[1:-1]
    if "param" in modifiers:
        return _parameter(program, it)
    space = next((_SPACES[m] for m in modifiers if m in _SPACES), None)
    count = next((int(m[1:]) for m in modifiers if m in ("v2", "v4", "v8")), 1)
    order = next((m for m in modifiers if m in ("acquire", "relaxed", "volatile", "release")), None)
    unknown = set(modifiers) - _CACHES - set(_SPACES) - {"v2", "v4", "v8", "gpu", "acquire", "relaxed", "volatile", "weak"}
    if space is None or unknown:
        raise NotCoveredError(f"modifiers {', '.join(sorted(unknown)) or 'without a state space'}")
    load, kind = it.parts[0] == "ld", it.parts[-1]
    bits, where = width(kind), it.operands[1 if load else 0]
    slots = program.group(it.operands[0 if load else 1], bits)
    if len(slots) != count:
        raise NotCoveredError(f"{len(slots)} registers for {count}")
    if order is not None and (not load or count > 1 or space != "global"):
        raise NotCoveredError(f"a .{order} access of this form")
    address, base = program.address(where, 64 if space == "global" else 32)
    program.access(space, bits // 8)
    if order is not None:
        return _ordered_load(program, it, slots[0], address, base, bits, order)
    kind_of_step = "memory" if space == "global" else ""
    if load:
        return Step(it, _load(program, it, space, slots, address, kind), kind_of_step, reads=(base,))
    return Step(it, _store(it, space, slots, address, bits), kind_of_step, reads=(base, *slots))


def _load(program: Layout, it: Instruction, space: str, slots: list[int], address: Any, kind: str) -> Any:
    bits, count = width(kind), len(slots)
    extended = [_extension(kind, program.bits[slot]) for slot in slots]

    def run(block: Block, mask: Any) -> None:
        lanes = block.lanes(mask)
        found = block.memories[space].load(block, lanes, block.spread(address(block), mask), bits // 8, count, it)
        for slot, value, extend in zip(slots, found, extended, strict=True):
            block.place(slot, value if extend is None else extend(value), lanes, mask)

    return run


def _extension(kind: str, bits: int) -> Any:
    """What makes a loaded value as wide as its register; None where it is."""
    own, to = width(kind), UNSIGNED[bits]
    if own == bits:
        return None
    if kind[0] == "s":
        return lambda value: value.view(SIGNED[own]).astype(SIGNED[bits]).view(to)
    return lambda value: value.astype(to)


def _store(it: Instruction, space: str, slots: list[int], address: Any, bits: int) -> Any:
    def run(block: Block, mask: Any) -> None:
        what: Bits = np.stack([block.spread(block.R[slot], mask) for slot in slots]).astype(UNSIGNED[bits], copy=False)
        block.memories[space].store(block, block.lanes(mask), block.spread(address(block), mask), what, it)

    return run


def _parameter(program: Layout, it: Instruction) -> Step:
    if it.parts[0] != "ld" or it.parts[1:-1] != ["param"]:
        raise NotCoveredError("an access to parameters of this form")
    name, offset = text.address(it.operands[1])
    size, to = width(it.parts[-1]) // 8, program.slot(it.operands[0], width(it.parts[-1]))
    if offset + size > program.kernel.parameters[name]:
        raise NotCoveredError("an access past a parameter's end")
    unsigned = UNSIGNED[8 * size]

    def run(block: Block, mask: Any) -> None:
        content = block.grid.parameters[name][offset : offset + size]
        block.write(to, np.frombuffer(content, unsigned), mask)

    return Step(it, run)


def _ordered_load(program: Layout, it: Instruction, to: int, address: Any, base: int, bits: int, order: str) -> Step:
    def run(block: Block, mask: Any) -> None:
        lanes = block.lanes(mask)
        where = block.spread(address(block), mask)
        words, index = block.grid.memory.words(block, lanes, where, bits // 8, it, False)
        if order == "acquire":
            for lane, at in zip(lanes.tolist(), where.tolist(), strict=True):
                block.clocks.acquire(at, block.first + lane // 32)
        block.place(to, words[index], lanes, mask)

    return Step(it, run, "poll", reads=(base,))


def _operation(action: str) -> Any:
    return {
        "add": lambda old, new: old + new,
        "exch": lambda old, new: new,
        "min": min,
        "max": max,
        "or": lambda old, new: old | new,
        "and": lambda old, new: old & new,
        "xor": lambda old, new: old ^ new,
    }[action]


def atomic(program: Layout, it: Instruction) -> Step:
    """atom and red on device memory, one thread after another."""
    name, *modifiers, kind = it.parts
    order = next((m for m in modifiers if m in ("acquire", "release", "acq_rel", "relaxed")), "relaxed")
    actions = [m for m in modifiers if m in ("add", "exch", "cas", "min", "max", "or", "and", "xor")]
    unknown = set(modifiers) - {"global", "gpu", order, *actions} - _CACHES
    if "global" not in modifiers or unknown or len(actions) != 1 or width(kind) not in (32, 64) or kind.endswith("x2"):
        raise NotCoveredError("an atomic of this form")
    bits, returns = width(kind), name == "atom"
    to = program.slot(it.operands[0], bits) if returns else None
    where, *given = it.operands[1 if returns else 0 :]
    address, base = program.address(where, 64)
    sources = [program.slot(o, bits) for o in given]
    number: Any = (SIGNED if kind[0] == "s" else FLOAT if kind[0] == "f" else UNSIGNED)[bits]
    action = None if actions == ["cas"] else _operation(actions[0])
    program.access("global", bits // 8)

    def run(block: Block, mask: Any) -> None:
        lanes = block.lanes(mask)
        at = block.spread(address(block), mask)
        values = [block.spread(block.R[s], mask).view(number) for s in sources]
        words, index = block.grid.memory.words(block, lanes, at, bits // 8, it, True)
        words = words.view(number)
        old, changed = np.empty(len(lanes), number), False
        for i, lane in enumerate(lanes.tolist()):
            warp, word = block.first + lane // 32, int(at[i])
            if order in ("acquire", "acq_rel"):
                block.clocks.acquire(word, warp)
            before = old[i] = words[index[i]]
            if action is None:
                words[index[i]] = values[1][i] if before == values[0][i] else before
            else:
                words[index[i]] = action(before, values[0][i])
            changed = changed or words[index[i]] != before
            if order in ("release", "acq_rel"):
                block.clocks.release(word, warp)
        block.refresh()
        block.grid.changes += bool(changed)
        if to is not None:
            block.place(to, old.view(UNSIGNED[bits]), lanes, mask)

    # A wait written as an atomic that changes nothing is a poll.
    polls = order == "acquire" or (actions == ["add"] and given[0] == "0")
    return Step(it, run, "poll" if polls else "atomic", reads=(base, *sources))


def move(program: Layout, it: Instruction) -> Step | None:
    """mov between a register and several narrower ones in braces; None for another mov."""
    to, source = it.operands
    bits = width(it.parts[-1]) if it.parts[-1] != "pred" else 1
    wide = UNSIGNED[bits]
    if to.startswith("{"):
        names = text.listed(to)
        part = bits // len(names)
        parts = [(i, program.slot(name, part)) for i, name in enumerate(names) if name != "_"]
        whole = program.slot(source, bits)

        def split(block: Block, mask: Any) -> None:
            value: Bits = block.R[whole]
            for i, slot in parts:
                block.write(slot, (value >> wide(part * i)).astype(UNSIGNED[part]), mask)

        return Step(it, split, reads=(whole,))
    if source.startswith("{"):
        names = text.listed(source)
        part = bits // len(names)
        slots = [program.slot(name, part) for name in names]
        joined = program.slot(to, bits)

        def join(block: Block, mask: Any) -> None:
            value = wide(0)
            for i, slot in enumerate(slots):
                value = value | (block.moved(slot).astype(wide) << wide(part * i))
            block.write(joined, value, mask)

        return Step(it, join)
    return None


def permute(program: Layout, it: Instruction) -> Step:
    """prmt: four bytes of two words."""
    if it.opcode != "prmt.b32":
        raise NotCoveredError("a permutation of this form")
    to, a, b, selector = (program.slot(o, 32) for o in it.operands)

    def run(block: Block, mask: Any) -> None:
        block.write(to, integers.permuted(block.moved(a), block.moved(b), block.R[selector]), mask)

    return Step(it, run, reads=(selector,))


def convert_address(program: Layout, it: Instruction) -> Step:
    """cvta: generic addresses are those of their state space, which lie apart."""
    if not set(it.parts[1:-1]) <= {"to", "global", "shared", "shared::cta", "param"}:
        raise NotCoveredError("an address of this state space")
    to, source = program.slot(it.operands[0], width(it.parts[-1])), program.slot(it.operands[1], width(it.parts[-1]))
    return Step(it, lambda block, mask: block.write(to, block.R[source], mask), reads=(source,))
