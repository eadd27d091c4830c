"""The executor's instructions on bits against Python's integers, on random bits and on those at the edges."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tests.kernels import ptx_texts

COUNT = 1024
MASK = {bits: (1 << bits) - 1 for bits in (8, 16, 32, 64)}


def signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def number(value: int, kind: str) -> int:
    bits = int(re.sub(r"\D", "", kind))
    return signed(value & MASK[bits], bits) if kind[0] == "s" else value & MASK[bits]


def draw(bits: int, seed: int, low: bool = False) -> np.ndarray:
    """Random bits of all magnitudes, and the edges; `low`: small numbers alone, for distances and lengths."""
    rng = np.random.default_rng(seed)
    unsigned = ptx_texts.UNSIGNED[bits]
    if low:
        return rng.integers(0, 80, COUNT, unsigned)
    values = rng.integers(0, MASK[bits], COUNT, unsigned, endpoint=True) >> rng.integers(0, bits, COUNT, unsigned)
    edges = [0, 1, MASK[bits], MASK[bits] >> 1, (MASK[bits] >> 1) + 1, MASK[bits] - 1]
    values[rng.choice(COUNT, 64, replace=False)] = rng.choice(np.array(edges, unsigned), 64)
    return values


def two(name: str, kind: str, function: Callable[[int, int], int]) -> tuple:
    return f"{name}.{kind} {{d}}, {{0}}, {{1}}", (kind, kind), kind, function


def truncated(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def field(kind: str) -> Callable[[int, int, int], int]:
    bits = int(kind[1:])

    def run(a: int, at: int, length: int) -> int:
        at, length = at & 255, length & 255
        if kind[0] == "u":
            return (a & MASK[bits]) >> at & ((1 << length) - 1)
        if not length:
            return 0
        wide = a & MASK[bits]
        sign = wide >> min(at + length - 1, bits - 1) & 1
        return sum((wide >> (at + i) & 1 if i < length and at + i < bits else sign) << i for i in range(bits))

    return run


def inserted(a: int, b: int, at: int, length: int) -> int:
    for i in range(length & 255):
        if at + i < 32:
            b = b & ~(1 << (at + i)) | (a >> i & 1) << (at + i)
    return b


def permuted(a: int, b: int, selector: int) -> int:
    source = (a | b << 32).to_bytes(8, "little")
    chosen = []
    for i in range(4):
        named = selector >> 4 * i & 15
        byte = source[named & 7]
        chosen.append((255 if byte & 128 else 0) if named & 8 else byte)
    return int.from_bytes(bytes(chosen), "little")


def logic(table: int) -> Callable[[int, int, int], int]:
    bit = lambda x, i: x >> i & 1
    return lambda a, b, c: sum((table >> (4 * bit(a, i) + 2 * bit(b, i) + bit(c, i)) & 1) << i for i in range(32))


def instructions() -> Iterator[tuple[str, tuple[str, ...], str, Callable[..., int]]]:
    """Text, types of the sources, type of the result, reference. A source of type "n" is a small number of 32 bits."""
    for kind in ("s16", "s32", "u32", "s64", "u64"):
        yield two("add", kind, lambda a, b: a + b)
        yield two("sub", kind, lambda a, b: a - b)
        yield two("mul.lo", kind, lambda a, b: a * b)
        yield two("min", kind, min)
        yield two("max", kind, max)
        bits = int(kind[1:])
        yield two("mul.hi", kind, lambda a, b, bits=bits: (a * b) >> bits)
        three = f"mad.lo.{kind} {{d}}, {{0}}, {{1}}, {{2}}"
        yield three, (kind,) * 3, kind, lambda a, b, c: a * b + c
        yield f"div.{kind} {{d}}, {{0}}, {{1}}", (kind, kind), kind, lambda a, b: truncated(a, b) if b else -1
        yield f"rem.{kind} {{d}}, {{0}}, {{1}}", (kind, kind), kind, lambda a, b: a - truncated(a, b) * b if b else -1
        yield f"shr.{kind} {{d}}, {{0}}, {{1}}", (kind, "n"), kind, lambda a, b: a >> b
    for kind, wide in (("s16", "s32"), ("u16", "u32"), ("s32", "s64"), ("u32", "u64")):
        yield f"mul.wide.{kind} {{d}}, {{0}}, {{1}}", (kind, kind), wide, lambda a, b: a * b
        yield f"mad.wide.{kind} {{d}}, {{0}}, {{1}}, {{2}}", (kind, kind, wide), wide, lambda a, b, c: a * b + c
    for bits in (16, 32, 64):
        kind = f"b{bits}"
        yield two("and", kind, lambda a, b: a & b)
        yield two("or", kind, lambda a, b: a | b)
        yield two("xor", kind, lambda a, b: a ^ b)
        yield f"not.{kind} {{d}}, {{0}}", (kind,), kind, lambda a: ~a
        yield f"shl.{kind} {{d}}, {{0}}, {{1}}", (kind, "n"), kind, lambda a, b: a << b
        yield f"neg.s{bits} {{d}}, {{0}}", (f"s{bits}",), kind, lambda a: -a
        yield f"abs.s{bits} {{d}}, {{0}}", (f"s{bits}",), kind, abs
    for bits in (32, 64):
        yield f"popc.b{bits} {{d}}, {{0}}", (f"u{bits}",), "u32", lambda a: a.bit_count()
        yield f"clz.b{bits} {{d}}, {{0}}", (f"u{bits}",), "u32", lambda a, bits=bits: bits - a.bit_length()
        yield f"brev.b{bits} {{d}}, {{0}}", (f"u{bits}",), f"b{bits}", lambda a, n=bits: int(f"{a:0{n}b}"[::-1], 2)
        for sign in "us":
            kind = f"{sign}{bits}"
            yield f"bfe.{kind} {{d}}, {{0}}, {{1}}, {{2}}", (kind, "n", "n"), kind, field(kind)
    yield "bfi.b32 {d}, {0}, {1}, {2}, {3}", ("u32", "u32", "n", "n"), "u32", inserted
    yield "prmt.b32 {d}, {0}, {1}, {2}", ("u32",) * 3, "u32", permuted
    yield "sad.s32 {d}, {0}, {1}, {2}", ("s32",) * 3, "s32", lambda a, b, c: abs(a - b) + c
    for table in (0xE8, 0x96, 0x01, 0xFE, 0xCA):
        yield f"lop3.b32 {{d}}, {{0}}, {{1}}, {{2}}, {table}", ("u32",) * 3, "u32", logic(table)
    both = lambda low, high: high << 32 | low
    for mode, distance in (("wrap", lambda n: n & 31), ("clamp", lambda n: min(n, 32))):
        left = lambda a, b, n, d=distance: both(a, b) << d(n) >> 32
        right = lambda a, b, n, d=distance: both(a, b) >> d(n)
        yield f"shf.l.{mode}.b32 {{d}}, {{0}}, {{1}}, {{2}}", ("u32", "u32", "n"), "u32", left
        yield f"shf.r.{mode}.b32 {{d}}, {{0}}, {{1}}, {{2}}", ("u32", "u32", "n"), "u32", right
    for source in ("s16", "u16", "s32", "u32", "s64", "u64"):
        for to in ("s16", "u16", "s32", "u32", "s64", "u64"):
            yield f"cvt.{to}.{source} {{d}}, {{0}}", (source,), to, lambda a: a
            least, most = (-(1 << int(to[1:]) - 1), MASK[int(to[1:])] >> 1) if to[0] == "s" else (0, MASK[int(to[1:])])
            clip = lambda a, least=least, most=most: min(max(a, least), most)
            yield f"cvt.sat.{to}.{source} {{d}}, {{0}}", (source,), to, clip


@pytest.mark.parametrize(("text", "kinds", "result", "reference"), [pytest.param(*i, id=i[0]) for i in instructions()])
def test_an_instruction_gives_the_bits_that_integers_give(text: str, kinds, result: str, reference) -> None:
    sources = [
        draw(32, i, low=True) if kind == "n" else draw(int(kind[1:]), len(text) * 10 + i) for i, kind in enumerate(kinds)
    ]
    bits = int(result[1:])
    found = ptx_texts.apply(text, sources, bits)
    taken = ["u32" if kind == "n" else kind for kind in kinds]
    expected = [
        reference(*(number(v, kind) for v, kind in zip(values, taken, strict=True))) & MASK[bits]
        for values in zip(*(s.tolist() for s in sources), strict=True)
    ]
    np.testing.assert_array_equal(found, np.array(expected, ptx_texts.UNSIGNED[bits]))


ORDER: dict[str, Callable[[int, int], bool]] = {
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "lt": lambda a, b: a < b, "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["s16", "u16", "s32", "u32", "s64", "u64"])
@pytest.mark.parametrize("name", ORDER)
def test_comparisons(name: str, kind: str) -> None:
    bits = int(kind[1:])
    a, b = draw(bits, 1), draw(bits, 2)
    b[::3] = a[::3]
    found = ptx_texts.apply(f"setp.{name}.{kind} {{d}}, {{0}}, {{1}}", [a, b], 1)
    expected = [ORDER[name](number(x, kind), number(y, kind)) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    np.testing.assert_array_equal(found, expected)


def test_a_value_is_extended_to_a_wider_register_by_its_type() -> None:
    values = np.arange(256, dtype=np.uint8)
    body = """
      cvt.u64.u32 %d10, %r0; add.s64 %d11, %d0, %d10; mad.lo.s64 %d12, %d10, 4, %d1; mad.lo.s64 %d13, %d10, 4, %d2;
      ld.global.s8 %r1, [%d11]; st.global.b32 [%d12], %r1; ld.global.u8 %r2, [%d11]; st.global.b32 [%d13], %r2;
    """
    (with_sign, without), _ = ptx_texts.run(body, [values], [np.zeros(256, np.int32), np.zeros(256, np.uint32)], threads=256)
    np.testing.assert_array_equal(with_sign, values.astype(np.int8).astype(np.int32))
    np.testing.assert_array_equal(without, values)
