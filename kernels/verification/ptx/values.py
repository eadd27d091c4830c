"""What the bits in a register stand for. A register is a NumPy array of unsigned integers, an element a thread.

Arithmetic of 16-bit floats is done in float32 and rounded once more. That second rounding never changes the result: float32
has more than twice as many digits (Figueroa 1995, "When is double rounding innocuous?").
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from kernels.verification.ptx.errors import NotCoveredError
from kernels.verification.ptx.text import width

Bits = np.ndarray[Any, Any]

UNSIGNED = {1: np.bool_, 8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
SIGNED = {8: np.int8, 16: np.int16, 32: np.int32, 64: np.int64}
FLOAT = {16: np.float16, 32: np.float32, 64: np.float64}
NAN_BF16 = np.uint16(0x7FFF)


class Kind(NamedTuple):
    """A type of PTX. `numbers` takes bits to what they stand for, `bits` numbers to bits, rounded to the nearest."""

    name: str
    width: int
    numbers: Callable[[Bits], Bits]
    bits: Callable[[Bits], Bits]

    @property
    def floating(self) -> bool:
        return self.name[0] == "f" or self.name.startswith(("bf", "tf"))

    @property
    def signed(self) -> bool:
        return self.name[0] == "s"


@functools.cache
def kind(name: str) -> Kind:
    bits = width(name)
    if name == "pred":
        return Kind(name, 1, lambda a: a, lambda a: a)
    if name == "bf16":
        return Kind(name, 16, from_bf16, to_bf16)
    if name == "f16":
        return Kind(name, 16, lambda a: a.view(np.float16).astype(np.float32), lambda v: v.astype(np.float16).view(np.uint16))
    table: dict[int, Any] = FLOAT if name[0] == "f" else SIGNED if name[0] == "s" else UNSIGNED
    if bits not in table or name.endswith("x2") or name[0] == "t":
        raise NotCoveredError(f"arithmetic on .{name}")
    number, unsigned = table[bits], UNSIGNED[bits]
    if number is unsigned:
        return Kind(name, bits, lambda a: a, lambda v: v.astype(unsigned, copy=False))
    return Kind(name, bits, lambda a: a.view(number), lambda v: v.astype(number, copy=False).view(unsigned))


def to_bf16(numbers: Bits) -> Bits:
    """float32 to the bits of the nearest bfloat16, ties to even."""
    bits = numbers.astype(np.float32, copy=False).view(np.uint32)
    rounded = ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype(np.uint16)
    return np.where(np.isnan(numbers), NAN_BF16, rounded)


def from_bf16(bits: Bits) -> Bits:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_tf32(bits: Bits) -> Bits:
    """float32 to the nearest with 10 bits of fraction, ties away from zero (cvt.rna), as bits of a float32."""
    return np.where((bits & 0x7F800000) == 0x7F800000, bits, (bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000))


def flushed(numbers: Bits) -> Bits:
    """float32 with subnormal numbers made zeros of their sign (.ftz)."""
    return np.where(np.abs(numbers) < np.float32(2.0**-126), np.copysign(np.float32(0), numbers), numbers)


def constant(written: str, bits: int) -> Bits:
    """An immediate operand as the one element that all threads share.

    Raises:
      NotCoveredError: it is none.
    """
    try:
        if written[:2].lower() in ("0f", "0d") and len(written) == (10 if written[1] in "fF" else 18):
            value = int(written[2:], 16)
        elif "." in written:
            return np.array([float(written)], FLOAT[bits]).view(UNSIGNED[bits])
        else:
            value = int(written.rstrip("U"), 0)
    except (ValueError, KeyError):
        raise NotCoveredError(f"the operand {written}") from None
    return np.array([value != 0 if bits == 1 else value & ((1 << bits) - 1)], UNSIGNED[bits])


def halves(bits: Bits) -> tuple[Bits, Bits]:
    """The low and the high 16 bits of 32."""
    return bits.astype(np.uint16), (bits >> 16).astype(np.uint16)


def joined(low: Bits, high: Bits) -> Bits:
    return low.astype(np.uint32) | (high.astype(np.uint32) << 16)
