"""Instructions on whole bits: shifts, fields, bytes, logic. Each function takes and gives bits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kernels.verification.ptx.values import SIGNED, UNSIGNED, Bits, Kind


def shift(left: bool, kind: Kind) -> Callable[[Bits, Bits], Bits]:
    """shl and shr: a distance of the width or more leaves nothing, or the sign."""
    bits, unsigned = kind.width, UNSIGNED[kind.width]

    def run(a: Bits, by: Bits) -> Bits:
        inside: Bits = np.minimum(by, bits - 1).astype(unsigned)
        if kind.signed and not left:
            return (a.view(SIGNED[bits]) >> inside.view(SIGNED[bits])).view(unsigned)
        shifted = a << inside if left else a >> inside
        return shifted if (by < bits).all() else np.where(by < bits, shifted, unsigned(0))

    return run


def funnel(left: bool, wrap: bool) -> Callable[[Bits, Bits, Bits], Bits]:
    """shf: the upper or lower word of two, shifted together."""

    def run(low: Bits, high: Bits, by: Bits) -> Bits:
        distance = ((by & np.uint32(31)) if wrap else np.minimum(by, 32)).astype(np.uint64)
        both = (high.astype(np.uint64) << np.uint64(32)) | low
        return ((both << distance) >> np.uint64(32) if left else both >> distance).astype(np.uint32)

    return run


def high_product(kind: Kind) -> Callable[[Bits, Bits], Bits]:
    """mul.hi: the upper half of a product of twice the width."""
    if kind.width <= 32:
        wide = (SIGNED if kind.signed else UNSIGNED)[2 * kind.width]
        return lambda a, b: kind.bits(
            ((kind.numbers(a).astype(wide) * kind.numbers(b).astype(wide)) >> wide(kind.width)).astype(
                (SIGNED if kind.signed else UNSIGNED)[kind.width]
            )
        )

    def run(a: Bits, b: Bits) -> Bits:
        pairs = zip(*(kind.numbers(x).tolist() for x in np.broadcast_arrays(a, b)), strict=True)
        return np.array([((x * y) >> 64) & (2**64 - 1) for x, y in pairs], np.uint64)

    return run


def wide_product(kind: Kind) -> Callable[[Bits, Bits], Bits]:
    """mul.wide: a product of twice the width."""
    wide = (SIGNED if kind.signed else UNSIGNED)[2 * kind.width]
    unsigned = UNSIGNED[2 * kind.width]
    return lambda a, b: (kind.numbers(a).astype(wide) * kind.numbers(b).astype(wide)).view(unsigned)


def field(kind: Kind) -> Callable[[Bits, Bits, Bits], Bits]:
    """bfe: `length` bits from `at` on, extended with zeros, or with the field's last bit."""
    bits, one = kind.width, np.uint64(1)

    def run(a: Bits, at: Bits, length: Bits) -> Bits:
        start, count = at & np.uint32(255), length & np.uint32(255)
        wide = kind.numbers(a).astype(np.int64 if kind.signed else np.uint64)  # past the last bit there are copies of the sign
        taken = (wide >> np.minimum(start, 63).astype(wide.dtype)).view(np.uint64)
        if not kind.signed:
            taken = np.where(start < bits, taken, np.uint64(0))
        mask = np.where(count < 64, (one << np.minimum(count, 63).astype(np.uint64)) - one, ~np.uint64(0))
        found = taken & mask
        if kind.signed:
            last = np.minimum(start.astype(np.int64) + count - 1, bits - 1).clip(0)
            negative = ((wide >> last) & np.int64(1)).astype(bool) & (count > 0)
            found = np.where(negative, found | ~mask, found)
        return found.astype(UNSIGNED[bits])

    return run


def inserted(kind: Kind) -> Callable[[Bits, Bits, Bits, Bits], Bits]:
    """bfi: the low `length` bits of a in b, from `at` on."""
    bits, one = kind.width, np.uint64(1)

    def run(a: Bits, b: Bits, at: Bits, length: Bits) -> Bits:
        start, count = (at & np.uint32(255)).astype(np.uint64), (length & np.uint32(255)).astype(np.uint64)
        ones = np.where(count < 64, (one << np.minimum(count, np.uint64(63))) - one, ~np.uint64(0))
        mask = np.where(start < bits, ones << np.minimum(start, np.uint64(63)), np.uint64(0))
        moved = a.astype(np.uint64) << np.minimum(start, np.uint64(63))
        return ((b.astype(np.uint64) & ~mask) | (moved & mask)).astype(UNSIGNED[bits])

    return run


def permuted(a: Bits, b: Bits, selector: Bits) -> Bits:
    """prmt: four bytes of the eight in a and b, each named by four bits; the fourth of them spreads the byte's sign."""
    both = a.astype(np.uint64) | (b.astype(np.uint64) << np.uint64(32))
    out = np.zeros(1, np.uint32)
    for i in range(4):
        named = (selector >> np.uint32(4 * i)) & np.uint32(15)
        byte = ((both >> ((named & np.uint32(7)).astype(np.uint64) * np.uint64(8))) & np.uint64(255)).astype(np.uint32)
        spread = np.where(byte & np.uint32(128), np.uint32(255), np.uint32(0))
        out = out | (np.where(named & np.uint32(8), spread, byte) << np.uint32(8 * i))
    return out


def logic(table: int) -> Callable[[Bits, Bits, Bits], Bits]:
    """lop3: any function of three bits; bit 4 a + 2 b + c of `table` is its value."""

    def run(a: Bits, b: Bits, c: Bits) -> Bits:
        out: Bits = np.zeros(1, a.dtype)
        for i in range(8):
            if table >> i & 1:
                out = out | ((a if i & 4 else ~a) & (b if i & 2 else ~b) & (c if i & 1 else ~c))
        return out

    return run


def quotient(kind: Kind, remainder: bool) -> Callable[[Bits, Bits], Bits]:
    """div and rem, towards zero. By zero PTX leaves the result open; here it is all ones."""

    def run(a: Bits, b: Bits) -> Bits:
        x, y = kind.numbers(a), kind.numbers(b)
        by: Bits = np.where(y == 0, y.dtype.type(1), y)
        rest = np.fmod(x, by)
        found = rest if remainder else (x - rest) // by
        return kind.bits(np.where(y == 0, np.array([-1]).astype(y.dtype), found))

    return run


def leading_zeros(kind: Kind) -> Callable[[Bits], Bits]:
    def run(a: Bits) -> Bits:
        count, rest = np.full(a.shape, kind.width, np.uint32), a.copy()
        while rest.any():
            count -= (rest != 0).astype(np.uint32)
            rest = rest >> UNSIGNED[kind.width](1)
        return count

    return run


def reversed_bits(kind: Kind) -> Callable[[Bits], Bits]:
    def run(a: Bits) -> Bits:
        out, rest, one = np.zeros_like(a), a.copy(), UNSIGNED[kind.width](1)
        for _ in range(kind.width):
            out, rest = (out << one) | (rest & one), rest >> one
        return out

    return run
