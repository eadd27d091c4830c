"""The executor's floating-point instructions against exact fractions, rounded by hand, on random bits and at the edges."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from tests.kernels import ptx_texts

COUNT = 1024
DIGITS = {"f16": 11, "bf16": 8, "f32": 24, "tf32": 11}
EXPONENTS = {"f16": (-14, 15), "bf16": (-126, 127), "f32": (-126, 127), "tf32": (-126, 127)}
BITS = {"f16": 16, "bf16": 16, "f32": 32, "tf32": 32}


def value(bits: int, kind: str) -> float:
    if kind == "f16":
        return struct.unpack("e", struct.pack("H", bits))[0]
    return struct.unpack("f", struct.pack("I", bits << 16 if kind == "bf16" else bits))[0]


def nearest(exact: Fraction, kind: str, flush: bool = False, away: bool = False) -> float:
    """Ties to even, or away from zero; `flush`: no subnormal numbers."""
    if not exact:
        return 0.0
    least, most = EXPONENTS[kind]
    exponent = math.floor(math.log2(abs(exact.numerator)) - math.log2(exact.denominator)) - 2
    while abs(exact) >= Fraction(2) ** (exponent + 1):
        exponent += 1
    unit = Fraction(2) ** (max(exponent, least) - DIGITS[kind] + 1)
    whole = round(exact / unit)
    if away and abs(exact / unit) % 1 == Fraction(1, 2):
        whole = math.ceil(abs(exact / unit)) * (1 if exact > 0 else -1)
    found = whole * unit
    if abs(found) >= Fraction(2) ** (most + 1):
        return math.copysign(math.inf, exact)
    if not found or (flush and abs(found) < Fraction(2) ** least):
        return math.copysign(0.0, exact)
    return float(found)


def draw(kind: str, seed: int, spread: int = 8) -> np.ndarray:
    """Random numbers of a few magnitudes, so that sums cancel and round; ties; subnormal numbers; zeros, infinities, NaN."""
    rng = np.random.default_rng(seed)
    unsigned = ptx_texts.UNSIGNED[BITS[kind]]
    fraction = {"f16": 10, "bf16": 7, "f32": 23}[kind]
    bias = {"f16": 15, "bf16": 127, "f32": 127}[kind]
    exponent = rng.integers(bias - spread, bias + spread, COUNT, unsigned)
    exponent[::17] = rng.integers(0, 3, exponent[::17].size, unsigned)
    exponent[5::29] = 2 * bias - rng.integers(0, 2, exponent[5::29].size, unsigned)
    digits = rng.integers(0, 1 << fraction, COUNT, unsigned)
    digits[::3] &= unsigned((1 << fraction) - (1 << (fraction - 3)))  # few digits: sums and products that are ties
    bits = rng.integers(0, 2, COUNT, unsigned) << unsigned(BITS[kind] - 1) | exponent << unsigned(fraction) | digits
    infinity = unsigned(((2 * bias + 1) << fraction) & 0xFFFFFFFF)
    special = [0, 1 << (BITS[kind] - 1), infinity, infinity | 1 << (BITS[kind] - 1), infinity | 1]
    bits[rng.choice(COUNT, 60, replace=False)] = rng.choice(np.array(special, unsigned), 60)
    return bits


def same(found: np.ndarray, expected: list[float], kind: str) -> None:
    """Equal to the bit; one NaN is as good as another."""
    got = [value(b, "f32" if kind == "tf32" else kind) for b in found.tolist()]
    for i, (a, e) in enumerate(zip(got, expected, strict=True)):
        equal = math.isnan(a) if math.isnan(e) else a == e and math.copysign(1, a) == math.copysign(1, e)
        assert equal, (i, a, e)


def exactly(function: Callable[..., Fraction], plain: Callable[..., float], kind: str, flush: bool = False):
    """`function` of fractions where all is finite, and nonzero; `plain` of floats elsewhere, which gives signs of zeros."""

    def run(*numbers: float) -> float:
        if flush:
            numbers = tuple(math.copysign(0.0, n) if abs(n) < 2.0**-126 else n for n in numbers)
        if all(map(math.isfinite, numbers)) and (exact := function(*map(Fraction, numbers))):
            return nearest(exact, kind, flush)
        return plain(*numbers)

    return run


def product(a: float, b: float) -> float:
    return math.nan if (math.isinf(a) and b == 0) or (math.isinf(b) and a == 0) else a * b


def total(a: float, b: float) -> float:
    return a + b


ARITHMETIC = {
    "add": (lambda a, b: a + b, total),
    "sub": (lambda a, b: a - b, lambda a, b: total(a, -b)),
    "mul": (lambda a, b: a * b, product),
    "fma.rn": (lambda a, b, c: a * b + c, lambda a, b, c: total(product(a, b), c)),
}


@pytest.mark.parametrize(("kind", "flush"), [("f32", False), ("f32", True), ("f16", False), ("bf16", False)])
@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic_rounds_once(name: str, kind: str, flush: bool) -> None:
    function, plain = ARITHMETIC[name]
    sources = [draw(kind, seed) for seed in range(function.__code__.co_argcount)]
    if len(sources) == 3:  # sums that nearly cancel, and products whose rounding an addend below their last digit decides
        sources[2][: COUNT // 2] = (
            sources[2] & (1 << BITS[kind] - 1) | sources[0] & ~sources[0].dtype.type(1 << BITS[kind] - 1)
        )[: COUNT // 2]
    operands = ", ".join(f"{{{i}}}" for i in range(len(sources)))
    found = ptx_texts.apply(f"{name}{'.ftz' * flush}.{kind} {{d}}, {operands}", sources, BITS[kind])
    run = exactly(function, plain, kind, flush)
    same(found, [run(*(value(b, kind) for b in row)) for row in zip(*(s.tolist() for s in sources), strict=True)], kind)


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_sixteen_bits_are_added_to_float32(kind: str) -> None:
    """From compute capability 10.0 on: the narrow sources are exact, the result is rounded once."""
    a, b, c = draw(kind, 1), draw(kind, 2), draw("f32", 3)
    rows = list(zip(a.tolist(), b.tolist(), c.tolist(), strict=True))
    for name, text in (("add", "add.rn.f32.{} {{d}}, {{0}}, {{2}}"), ("fma.rn", "fma.rn.f32.{} {{d}}, {{0}}, {{1}}, {{2}}")):
        function, plain = ARITHMETIC[name]
        run = exactly(function, plain, "f32")
        found = ptx_texts.apply(text.format(kind), [a, b, c], 32)
        wide = [(value(x, kind), value(y, kind), value(z, "f32")) for x, y, z in rows]
        same(found, [run(x, z) if name == "add" else run(x, y, z) for x, y, z in wide], "f32")


def test_three_are_compared_at_once() -> None:
    a, b, c = (draw("f32", seed).view(np.float32) for seed in (1, 2, 3))
    found = ptx_texts.apply("max.f32 {d}, {0}, {1}, {2}", [x.view(np.uint32) for x in (a, b, c)], 32)
    np.testing.assert_array_equal(found.view(np.float32), np.fmax(np.fmax(a, b), c))


def test_a_fused_product_whose_double_rounding_would_be_wrong() -> None:
    """2**-24 + 2**-60 above 1 rounds up; a float64 of the sum has lost the 2**-60, and ties to even would go down."""
    a = np.array([1 + 2**-12, 1.0] * 16, np.float32)
    b = np.array([2**-24 * (1 + 2**-12), 2.0**-24] * 16, np.float32)
    c = np.full(32, 1, np.float32)
    found = ptx_texts.apply("fma.rn.f32 {d}, {0}, {1}, {2}", [x.view(np.uint32) for x in (a, b, c)], 32)
    assert found.view(np.float32)[0] == 1 + 2**-23
    assert found.view(np.float32)[1] == 1  # a tie, to even


@pytest.mark.parametrize("kind", ["f16x2", "bf16x2"])
def test_halves_are_computed_apart(kind: str) -> None:
    one = kind[:-2]
    low, high = [draw(one, s) for s in (1, 2)], [draw(one, s) for s in (3, 4)]
    packed = [a.astype(np.uint32) | b.astype(np.uint32) << 16 for a, b in zip(low, high, strict=True)]
    found = ptx_texts.apply(f"add.{kind} {{d}}, {{0}}, {{1}}", packed, 32)
    run = exactly(lambda a, b: a + b, total, one)
    for part, sources in ((found & 0xFFFF, low), (found >> 16, high)):
        same(part, [run(value(a, one), value(b, one)) for a, b in zip(*(s.tolist() for s in sources), strict=True)], one)


@pytest.mark.parametrize("to", ["f16", "bf16", "tf32"])
def test_float32_is_rounded_to_fewer_digits(to: str) -> None:
    a = draw("f32", 7, spread=30)
    a[::5] = a[::5] & 0xFFFFE000 | 0x1000  # ties of 10 and of 7 digits
    a[1::5] = a[1::5] & 0xFFFF0000 | 0x8000
    text = "cvt.rna.tf32.f32 {d}, {0}" if to == "tf32" else f"cvt.rn.{to}.f32 {{d}}, {{0}}"
    found = ptx_texts.apply(text, [a], 32 if to == "tf32" else 16)
    exact = lambda x: nearest(Fraction(x), to, away=to == "tf32") if x and math.isfinite(x) else x
    same(found, [exact(value(b, "f32")) for b in a.tolist()], to)


def test_two_float32_are_packed_with_the_first_in_the_upper_half() -> None:
    a, b = draw("f32", 8), draw("f32", 9)
    found = ptx_texts.apply("cvt.rn.bf16x2.f32 {d}, {0}, {1}", [a, b], 32)
    exact = lambda x: nearest(Fraction(x), "bf16") if x and math.isfinite(x) else x
    same(found >> 16, [exact(value(x, "f32")) for x in a.tolist()], "bf16")
    same(found & 0xFFFF, [exact(value(x, "f32")) for x in b.tolist()], "bf16")


@pytest.mark.parametrize("source", ["f16", "bf16"])
def test_sixteen_bits_become_float32_exactly(source: str) -> None:
    every = np.arange(1 << 16, dtype=np.uint16)
    found = ptx_texts.apply(f"cvt.f32.{source} {{d}}, {{0}}", [every], 32)
    same(found, [value(b, source) for b in every.tolist()], "f32")


ROUNDINGS = {"rzi": math.trunc, "rni": round, "rmi": math.floor, "rpi": math.ceil}


@pytest.mark.parametrize("to", ["s32", "u32", "s64", "u64", "s16", "u16"])
@pytest.mark.parametrize("mode", ROUNDINGS)
def test_floats_become_integers_within_their_range(mode: str, to: str) -> None:
    a = draw("f32", 11, spread=70)
    bits = int(to[1:])
    least, most = (-(1 << bits - 1), (1 << bits - 1) - 1) if to[0] == "s" else (0, (1 << bits) - 1)
    found = ptx_texts.apply(f"cvt.{mode}.{to}.f32 {{d}}, {{0}}", [a], bits)

    def reference(x: float) -> int:
        if math.isnan(x):
            return 0
        return min(max(x, least), most) if math.isinf(x) else min(max(ROUNDINGS[mode](x), least), most)

    expected = [int(reference(value(b, "f32"))) & ((1 << bits) - 1) for b in a.tolist()]
    np.testing.assert_array_equal(found, np.array(expected, ptx_texts.UNSIGNED[bits]))


@pytest.mark.parametrize(
    ("source", "to"),
    [*((s, "f32") for s in ("s16", "u16", "s32", "u32", "s64", "u64")), *((s, "f16") for s in ("s16", "u16", "s32", "u32"))],
)
def test_integers_become_the_nearest_float(source: str, to: str) -> None:
    bits = int(source[1:])
    rng = np.random.default_rng(bits)
    a = rng.integers(0, (1 << bits) - 1, COUNT, ptx_texts.UNSIGNED[bits], endpoint=True)
    a >>= rng.integers(0, bits, COUNT, ptx_texts.UNSIGNED[bits])
    found = ptx_texts.apply(f"cvt.rn.{to}.{source} {{d}}, {{0}}", [a], BITS[to])
    signed = a.view(f"int{bits}") if source[0] == "s" else a
    same(found, [nearest(Fraction(n), to) for n in signed.tolist()], to)


COMPARED = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("name", [*COMPARED, *(f"{n}u" for n in COMPARED), "num", "nan"])
def test_comparisons_with_nan(name: str, kind: str) -> None:
    a, b = draw(kind, 1), draw(kind, 2)
    b[::3] = a[::3]
    found = ptx_texts.apply(f"setp.{name}.{kind} {{d}}, {{0}}, {{1}}", [a, b], 1)
    operators = {
        "==": float.__eq__, "!=": float.__ne__, "<": float.__lt__, "<=": float.__le__, ">": float.__gt__, ">=": float.__ge__,
    }  # fmt: skip
    for x, y, got in zip(a.tolist(), b.tolist(), found.tolist(), strict=True):
        p, q = value(x, kind), value(y, kind)
        nan = math.isnan(p) or math.isnan(q)
        if name in ("num", "nan"):
            expected = nan == (name == "nan")
        else:
            expected = name.endswith("u") if nan else operators[COMPARED[name.removesuffix("u")]](p, q)
        assert got == expected, (p, name, q)


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("name", ["min", "max", "min.NaN", "max.NaN"])
def test_extremes_of_nan_and_of_zeros(name: str, kind: str) -> None:
    a, b = draw(kind, 5), draw(kind, 6)
    b[::3] = a[::3] ^ (1 << BITS[kind] - 1)
    found = ptx_texts.apply(f"{name}.{kind} {{d}}, {{0}}, {{1}}", [a, b], BITS[kind])

    def reference(x: float, y: float) -> float:
        if math.isnan(x) or math.isnan(y):
            return math.nan if "NaN" in name or (math.isnan(x) and math.isnan(y)) else y if math.isnan(x) else x
        largest = name.startswith("max")
        if x == y:
            return x if (math.copysign(1, x) > 0) == largest else y
        return max(x, y) if largest else min(x, y)

    expected = [reference(value(x, kind), value(y, kind)) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    same(found, expected, kind)


FUNCTIONS: dict[str, Callable[[float], float]] = {
    "ex2.approx": lambda x: 2.0**x if x < 128 else math.inf,
    "lg2.approx": lambda x: math.log2(x) if x > 0 else (-math.inf if x == 0 else math.nan),
    "sqrt.rn": lambda x: math.sqrt(x) if x > 0 else (x if x == 0 else math.nan),
    "rcp.approx": lambda x: 1 / x if x else math.copysign(math.inf, x),
    "rsqrt.approx": lambda x: 1 / math.sqrt(x) if x > 0 else (math.copysign(math.inf, x) if x == 0 else math.nan),
    "tanh.approx": math.tanh,
    "sin.approx": lambda x: math.sin(x) if math.isfinite(x) else math.nan,
    "cos.approx": lambda x: math.cos(x) if math.isfinite(x) else math.nan,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    a = draw("f32", 12, spread=5)
    found = ptx_texts.apply(f"{name}.f32 {{d}}, {{0}}", [a], 32).view(np.float32)
    expected = np.array([math.nan if math.isnan(x) else FUNCTIONS[name](x) for x in a.view(np.float32).tolist()])
    # Two libraries' functions of float64, each within an ulp of float64: they round to float32 alike, or to neighbours.
    with np.errstate(over="ignore"):
        np.testing.assert_array_max_ulp(found, expected.astype(np.float32), 1)


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
def test_signs(kind: str) -> None:
    a = draw(kind, 13)
    sign = 1 << BITS[kind] - 1
    np.testing.assert_array_equal(ptx_texts.apply(f"neg.{kind} {{d}}, {{0}}", [a], BITS[kind]), a ^ sign)
    np.testing.assert_array_equal(ptx_texts.apply(f"abs.{kind} {{d}}, {{0}}", [a], BITS[kind]), a & (sign - 1))
