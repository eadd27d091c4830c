"""What an instruction computes that touches registers alone: from its opcode to a function of bits."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from kernels.verification.ptx import conversions, floats, integers
from kernels.verification.ptx.errors import NotCoveredError
from kernels.verification.ptx.text import width
from kernels.verification.ptx.values import UNSIGNED, Bits, Kind, flushed, kind


class Operation(NamedTuple):
    """A function of the sources' bits, the types of the sources, and that of the result."""

    run: Callable[..., Bits]
    sources: tuple[str, ...]
    result: str


def of(opcode: str, sources: int | None = None) -> Operation | None:
    """The operation of an opcode; None where it is none of arithmetic.

    Args:
      sources: how many it is given: min and max of float32 take three from compute capability 10.0 on.

    Raises:
      NotCoveredError: a modifier or type of it is not known.
    """
    name, *parts = opcode.split(".")
    if name not in _INSTRUCTIONS or not parts:
        return None
    try:
        found = _INSTRUCTIONS[name](name, parts[:-1], parts[-1])
    except KeyError as error:
        raise NotCoveredError(f"{opcode}: {error}") from error
    if sources == 3 and name in ("min", "max") and parts[-1] == "f32":
        return Operation(lambda a, b, c: found.run(found.run(a, b), c), ("f32",) * 3, "f32")
    return found


def _only(modifiers: list[str], *known: str) -> None:
    """Raises for a modifier that is none of these."""
    for modifier in modifiers:
        if modifier not in known:
            raise NotCoveredError(f"the modifier .{modifier}")


def _packed(build: Callable[[str, list[str], str], Operation]) -> Callable[[str, list[str], str], Operation]:
    """An instruction on f16x2, bf16x2 or f32x2 does to each half what it does to one."""

    @functools.wraps(build)
    def both(name: str, modifiers: list[str], type_: str) -> Operation:
        if not type_.endswith("x2"):
            return build(name, modifiers, type_)
        one = build(name, modifiers, type_[:-2])
        half = UNSIGNED[width(type_[:-2])]
        wide, distance = UNSIGNED[width(type_)], width(type_[:-2])

        def run(*sources: Bits) -> Bits:
            low = one.run(*(a.astype(half) for a in sources))
            high = one.run(*((a >> wide(distance)).astype(half) for a in sources))
            return low.astype(wide) | (high.astype(wide) << wide(distance))

        return Operation(run, (type_,) * len(one.sources), type_)

    return both


def _floating(function: Callable[..., Bits], of: Kind, modifiers: list[str]) -> Callable[..., Bits]:
    """`function` of numbers as one of bits, with subnormal numbers flushed where .ftz says so."""
    if "ftz" in modifiers:
        if of.width != 32:
            raise NotCoveredError(f".ftz of .{of.name}")
        return lambda *a: of.bits(flushed(function(*(flushed(of.numbers(x)) for x in a))))
    if "sat" in modifiers:
        return lambda *a: of.bits(np.fmin(np.fmax(function(*map(of.numbers, a)), 0), 1).astype(np.float32))
    return lambda *a: of.bits(function(*map(of.numbers, a)))


def _mixed(function: Callable[..., Bits], modifiers: list[str], type_: str, narrow: int) -> Operation:
    """Arithmetic in float32 whose first `narrow` sources are 16-bit floats; the last is a float32."""
    _only(modifiers, "rn", "f32")
    of, single = kind(type_), kind("f32")
    run = lambda *a: single.bits(function(*(of.numbers(x) for x in a[:narrow]), single.numbers(a[narrow])))
    return Operation(run, (*(type_,) * narrow, "f32"), "f32")


@_packed
def _sum(name: str, modifiers: list[str], type_: str) -> Operation:
    of, function = kind(type_), {"add": np.add, "sub": np.subtract}[name]
    if "f32" in modifiers:
        return _mixed(function, modifiers, type_, 1)
    if of.floating:
        _only(modifiers, "rn", "ftz", "sat")
        return Operation(_floating(function, of, modifiers), (type_,) * 2, type_)
    _only(modifiers)
    return Operation(function, (type_,) * 2, type_)


@_packed
def _product(name: str, modifiers: list[str], type_: str) -> Operation:
    of = kind(type_)
    if of.floating:
        _only(modifiers, "rn", "ftz", "sat")
        return Operation(_floating(np.multiply, of, modifiers), (type_,) * 2, type_)
    _only(modifiers, "lo", "hi", "wide")
    if modifiers == ["lo"]:
        return Operation(np.multiply, (type_,) * 2, type_)
    if modifiers == ["hi"]:
        return Operation(integers.high_product(of), (type_,) * 2, type_)
    if modifiers == ["wide"]:
        return Operation(integers.wide_product(of), (type_,) * 2, f"b{2 * of.width}")
    raise NotCoveredError("mul without .lo, .hi or .wide")


@_packed
def _fused(name: str, modifiers: list[str], type_: str) -> Operation:
    of = kind(type_)
    if "f32" in modifiers:
        return _mixed(floats.fused, modifiers, type_, 2)
    if of.floating:
        _only(modifiers, "rn", "ftz", "relu" if of.width == 16 else "rn")
        if of.width == 64:
            raise NotCoveredError("fma of .f64")
        function = floats.fused if of.width == 32 else floats.fused_half
        if "relu" in modifiers:
            plain = function
            function = lambda *a: np.maximum(plain(*a), np.float32(0))
        return Operation(_floating(function, of, modifiers), (type_,) * 3, type_)
    _only(modifiers, "lo", "wide", "hi")
    product = _product("mul", modifiers, type_)
    return Operation(lambda a, b, c: product.run(a, b) + c, (type_, type_, product.result), product.result)


@_packed
def _extreme(name: str, modifiers: list[str], type_: str) -> Operation:
    of = kind(type_)
    if of.floating:
        _only(modifiers, "ftz", "NaN")
        function = floats.extreme(name == "max", "NaN" in modifiers)
        return Operation(_floating(function, of, modifiers), (type_,) * 2, type_)
    _only(modifiers)
    pick = np.maximum if name == "max" else np.minimum
    return Operation(lambda a, b: of.bits(pick(of.numbers(a), of.numbers(b))), (type_,) * 2, type_)


@_packed
def _sign(name: str, modifiers: list[str], type_: str) -> Operation:
    of = kind(type_)
    _only(modifiers, *(["ftz"] if of.floating else []))
    if of.floating:  # the sign alone, of a NaN too
        sign = UNSIGNED[of.width](1 << (of.width - 1))
        run = (lambda a: a ^ sign) if name == "neg" else (lambda a: a & ~sign)
        if "ftz" in modifiers:
            return Operation(lambda a: of.bits(flushed(of.numbers(run(a)))), (type_,), type_)
        return Operation(run, (type_,), type_)
    function = np.negative if name == "neg" else np.abs
    return Operation(lambda a: of.bits(function(of.numbers(a))), (type_,), type_)


def _division(name: str, modifiers: list[str], type_: str) -> Operation:
    of = kind(type_)
    if of.floating:
        _only(modifiers, "rn", "full", "approx", "ftz")
        return Operation(_floating(np.divide, of, modifiers), (type_,) * 2, type_)
    _only(modifiers)
    return Operation(integers.quotient(of, name == "rem"), (type_,) * 2, type_)


@_packed
def _function(name: str, modifiers: list[str], type_: str) -> Operation:
    of = kind(type_)
    _only(modifiers, "approx", "rn", "ftz")
    if of.width == 16 and "ftz" in modifiers:  # subnormal bfloat16 and float16 of ex2.approx.ftz
        modifiers = [m for m in modifiers if m != "ftz"]
    return Operation(_floating(floats.FUNCTIONS[name], of, modifiers), (type_,), type_)


def _logic(name: str, modifiers: list[str], type_: str) -> Operation:
    _only(modifiers)
    function = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert}[name]
    return Operation(function, (type_,) * (1 if name == "not" else 2), type_)


def _shift(name: str, modifiers: list[str], type_: str) -> Operation:
    _only(modifiers)
    return Operation(integers.shift(name == "shl", kind(type_)), (type_, "u32"), type_)


def _funnel(name: str, modifiers: list[str], type_: str) -> Operation:
    _only(modifiers, "l", "r", "wrap", "clamp")
    return Operation(integers.funnel("l" in modifiers, "wrap" in modifiers), (type_, type_, "u32"), type_)


def _compare(name: str, modifiers: list[str], type_: str) -> Operation:
    compare, *joins = [m for m in modifiers if m != "ftz"]
    of = kind(type_)
    if of.floating:
        function = floats.COMPARISONS[compare]
    else:
        unsigned = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}.get(compare, compare)
        function = {**floats.ORDERED, "ne": np.not_equal}[unsigned]
    change = flushed if "ftz" in modifiers else lambda x: x
    test = lambda a, b: function(change(of.numbers(a)), change(of.numbers(b)))
    if not joins:
        return Operation(test, (type_,) * 2, "pred")
    join = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}[joins[0]]
    return Operation(lambda a, b, c: join(test(a, b), c), (type_, type_, "pred"), "pred")


def _select(name: str, modifiers: list[str], type_: str) -> Operation:
    _only(modifiers)
    return Operation(lambda a, b, p: np.where(p, a, b), (type_, type_, "pred"), type_)


def _move(name: str, modifiers: list[str], type_: str) -> Operation:
    _only(modifiers)
    return Operation(lambda a: a, (type_,), type_)


def _field(name: str, modifiers: list[str], type_: str) -> Operation:
    _only(modifiers)
    if name == "bfi":
        return Operation(integers.inserted(kind(type_)), (type_, type_, "u32", "u32"), type_)
    return Operation(integers.field(kind(type_)), (type_, "u32", "u32"), type_)


def _count(name: str, modifiers: list[str], type_: str) -> Operation:
    _only(modifiers)
    of = kind(type_)
    if name == "brev":
        return Operation(integers.reversed_bits(of), (type_,), type_)
    run = integers.leading_zeros(of) if name == "clz" else lambda a: np.bitwise_count(a).astype(np.uint32)
    return Operation(run, (type_,), "u32")


def _absolute_difference(name: str, modifiers: list[str], type_: str) -> Operation:
    _only(modifiers)
    of = kind(type_)
    return Operation(
        lambda a, b, c: np.where(of.numbers(a) > of.numbers(b), a - b, b - a) + c, (type_, type_, f"b{of.width}"), type_
    )


def _convert(name: str, modifiers: list[str], type_: str) -> Operation:
    *modifiers, to = modifiers
    run, sources = conversions.of(modifiers, to, type_)
    return Operation(run, (type_,) * sources, to if to != "tf32" else "b32")


_INSTRUCTIONS: dict[str, Callable[[str, list[str], str], Operation]] = {
    **dict.fromkeys(("add", "sub"), _sum),
    **dict.fromkeys(("fma", "mad"), _fused),
    **dict.fromkeys(("min", "max"), _extreme),
    **dict.fromkeys(("neg", "abs"), _sign),
    **dict.fromkeys(("div", "rem"), _division),
    **dict.fromkeys(floats.FUNCTIONS, _function),
    **dict.fromkeys(("and", "or", "xor", "not"), _logic),
    **dict.fromkeys(("shl", "shr"), _shift),
    **dict.fromkeys(("bfe", "bfi"), _field),
    **dict.fromkeys(("popc", "clz", "brev"), _count),
    "mul": _product,
    "shf": _funnel,
    "setp": _compare,
    "selp": _select,
    "mov": _move,
    "sad": _absolute_difference,
    "cvt": _convert,
}
