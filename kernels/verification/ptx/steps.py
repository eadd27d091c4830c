"""Steps: what instructions become. Registers are numbered slots, and every instruction is a function that acts on a block."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from kernels.verification.ptx import arithmetic, text, values
from kernels.verification.ptx.errors import NotCoveredError
from kernels.verification.ptx.text import Instruction, width
from kernels.verification.ptx.values import SIGNED, UNSIGNED, Bits

if TYPE_CHECKING:
    from kernels.verification.ptx.block import Block

# What a step does to a block whose threads in `mask` (None: all of them) take part; of "wait" it gives those that must wait.
Run = Callable[["Block", Any], Any]

SHARED = 1024  # the address at which a block's shared memory begins
PARAMETERS = 1 << 30  # that of the first parameter


@dataclasses.dataclass(slots=True)
class Step:
    """One instruction, ready to run.

    Attributes:
      kind: "" for what only computes or moves; "branch", "barrier", "wait" and "exit" change where threads are; after "memory"
        another block may run for a while, after "atomic" one must have the chance, and after "poll", which may be in vain.
      target: of a branch; of a barrier, 1 where it is one of a part of the block.
      guard: slot of the predicate, or None.
      reads: slots of its sources.
    """

    it: Instruction
    run: Run | None = None
    kind: str = ""
    guard: int | None = None
    negated: bool = False
    target: int = -1
    reads: tuple[int, ...] = ()


class Layout:
    """Where the registers, constants and arrays of a kernel are.

    Attributes:
      slots: names of registers, special registers and constants -> their places.
      bits: of each slot, its width.
      constants: slot -> its value.
      grain: bytes of the narrowest access to "shared" and to "global" memory.
      symbols: arrays in shared memory -> their addresses.
      communicates: whether blocks may hand something to each other.
      agents: 1 where tiles are copied by the hardware, which then counts as one more warp of a block.
      asynchronous: whether something reads shared memory for which stores must be fenced (wgmma, bulk copies).
    """

    def __init__(self, ptx: str):
        self.kernel = text.read(ptx)
        self.slots: dict[str, int] = {}
        self.bits: list[int] = []
        self.constants: dict[int, Bits] = {}
        self.grain = {"shared": 16, "global": 16}
        self.symbols, self.static_shared = self._shared_arrays()
        self.symbols |= self._parameters()
        opcodes = [it.opcode for it in self.kernel.instructions]
        self.asynchronous = any(opcode.startswith(("wgmma", "cp.async.bulk", "tcgen05")) for opcode in opcodes)
        self.communicates = any(opcode.startswith(("atom", "red", "mbarrier")) for opcode in opcodes)
        self.agents = int(any(opcode.startswith("cp.async.bulk") for opcode in opcodes))

    def _shared_arrays(self) -> tuple[dict[str, int], int]:
        """Addresses of the arrays in shared memory, and bytes of those whose size the text gives; another lies behind."""
        found, at = {}, SHARED
        for name, (alignment, size) in sorted(self.kernel.shared.items(), key=lambda item: item[1][1] == 0):
            at = -(-at // alignment) * alignment
            found[name] = at
            at += size
        return found, at - SHARED

    def _parameters(self) -> dict[str, int]:
        found, at = {}, PARAMETERS
        for name, size in self.kernel.parameters.items():
            found[name] = at
            at += -(-size // 128) * 128
        return found

    def slot(self, operand: str, bits: int) -> int:
        """Where the value of an operand is; an immediate becomes a constant of this width."""
        special = operand.startswith("%") and operand[1:].partition(".")[0] in text.SPECIAL
        own = 32 if special else self.kernel.bits(operand)
        if own is None:
            name = f"{operand}:{bits}"
            if name not in self.slots:
                if operand in self.symbols:
                    value: Bits = np.array([self.symbols[operand]], UNSIGNED[bits])
                else:
                    value = values.constant(operand, bits)
                self.constants[self._new(name, bits)] = value
            return self.slots[name]
        return self.slots[operand] if operand in self.slots else self._new(operand, own)

    def _new(self, name: str, bits: int) -> int:
        self.slots[name] = len(self.bits)
        self.bits.append(bits)
        return self.slots[name]

    def group(self, operand: str, bits: int) -> list[int]:
        """Slots of the registers in braces."""
        return [self.slot(name, bits) for name in text.listed(operand)]

    def address(self, operand: str, bits: int) -> tuple[Callable[[Block], Bits], int]:
        """From a block to the addresses that `[base+offset]` names for its threads, and the slot of the base."""
        base, offset = text.address(operand)
        slot, more = self.slot(base, bits), np.uint64(offset & (2**64 - 1))
        if not offset and bits == 64:
            return (lambda block: block.R[slot]), slot
        return (lambda block: block.R[slot].astype(np.uint64) + more), slot

    def access(self, space: str, size: int) -> None:
        """Notes an access of `size` bytes at a time."""
        self.grain[space] = min(self.grain[space], size)


def computing(program: Layout, it: Instruction) -> Step | None:
    """The step of an instruction that touches registers alone; None for another."""
    operation = arithmetic.of(it.opcode, len(it.operands) - 1)
    if operation is None:
        return None
    run, kinds, result = operation
    if len(it.operands) != len(kinds) + 1:
        raise NotCoveredError(f"{len(it.operands)} operands")
    sources = tuple(program.slot(o, width(k)) for o, k in zip(it.operands[1:], kinds, strict=True))
    to = program.slot(it.operands[0], width(result))
    narrow = [None if program.bits[s] == width(k) else UNSIGNED[width(k)] for s, k in zip(sources, kinds, strict=True)]
    if any(narrow):
        exact = run
        run = lambda *a: exact(*(x if n is None else x.astype(n) for x, n in zip(a, narrow, strict=True)))
    if program.bits[to] != width(result):
        run = widened(run, result, program.bits[to])
    if len(sources) == 1:
        (a,) = sources
        return Step(it, lambda block, mask: block.write(to, run(block.R[a]), mask), reads=sources)
    if len(sources) == 2:
        a, b = sources
        return Step(it, lambda block, mask: block.write(to, run(block.R[a], block.R[b]), mask), reads=sources)
    return Step(it, lambda block, mask: block.write(to, run(*[block.R[s] for s in sources]), mask), reads=sources)


def widened(run: Callable[..., Bits], kind: str, bits: int) -> Callable[..., Bits]:
    """A result narrower than its register: sign-extended where its type has a sign."""
    to = UNSIGNED[bits]
    if kind[0] == "s":
        own, signed = SIGNED[width(kind)], SIGNED[bits]
        return lambda *a: run(*a).view(own).astype(signed).view(to)
    return lambda *a: run(*a).astype(to)
