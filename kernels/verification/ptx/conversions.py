"""cvt: between types, with the rounding that it names."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kernels.verification.ptx.errors import NotCoveredError
from kernels.verification.ptx.values import SIGNED, UNSIGNED, Bits, Kind, flushed, joined, kind, to_tf32

_TO_INTEGRAL = {"rzi": np.trunc, "rni": np.rint, "rmi": np.floor, "rpi": np.ceil}


def of(modifiers: list[str], to: str, source: str) -> tuple[Callable[..., Bits], int]:
    """A function of bits, and how many sources it takes: two where the result is packed.

    Raises:
      NotCoveredError: the conversion is not known.
    """
    known = {"rn", "rna", "ftz", "sat", "relu", *_TO_INTEGRAL}
    if unknown := set(modifiers) - known:
        raise NotCoveredError(f"cvt with .{', .'.join(sorted(unknown))}")
    if to == "tf32":
        if modifiers != ["rna"]:
            raise NotCoveredError("cvt to .tf32 without .rna")
        return to_tf32, 1
    if to.endswith("x2"):
        one, _ = of(modifiers, to[:-2], source)
        return lambda high, low: joined(one(low), one(high)), 2  # the first source is the upper half
    target, given = kind(to), kind(source)
    if given.floating and target.floating:
        return _between_floats(modifiers, target, given), 1
    if given.floating:
        return _to_integer(modifiers, target, given), 1
    if set(modifiers) - {"rn"} - ({"sat"} if not target.floating else set()):
        raise NotCoveredError(f"cvt from .{source} with .{', .'.join(modifiers)}")
    if target.floating:
        if target.width == 16 and given.width > 16:
            return lambda a: target.bits(_nearest_odd(given.numbers(a))), 1
        return lambda a: target.bits(given.numbers(a)), 1
    if "sat" in modifiers:
        return _saturated(target, given), 1
    wide, unsigned = (SIGNED if given.signed else UNSIGNED)[64], UNSIGNED[target.width]
    if target.width <= given.width:
        return lambda a: a.astype(unsigned), 1
    return lambda a: given.numbers(a).astype(wide).astype(unsigned), 1


def _between_floats(modifiers: list[str], target: Kind, given: Kind) -> Callable[[Bits], Bits]:
    steps: list[Callable[[Bits], Bits]] = [given.numbers]
    if "ftz" in modifiers:
        steps.append(flushed)
    steps += [_TO_INTEGRAL[m] for m in modifiers if m in _TO_INTEGRAL]
    if "rna" in modifiers:
        raise NotCoveredError(f"cvt.rna to .{target.name}")
    if given.width == 64 and target.name == "bf16":
        raise NotCoveredError("cvt from .f64 to .bf16")
    if "relu" in modifiers:
        steps.append(lambda v: np.where(np.isnan(v), v, np.maximum(v, np.float32(0))))
    if "sat" in modifiers:
        steps.append(lambda v: np.fmin(np.fmax(v, np.float32(0)), np.float32(1)))

    def run(a: Bits) -> Bits:
        for step in steps:
            a = step(a)
        return target.bits(a)

    return run


def _to_integer(modifiers: list[str], target: Kind, given: Kind) -> Callable[[Bits], Bits]:
    """Numbers outside the target's range become its nearest end, NaN becomes zero."""
    rounded = next((_TO_INTEGRAL[m] for m in modifiers if m in _TO_INTEGRAL), None)
    if rounded is None:
        raise NotCoveredError(f"cvt from .{given.name} to .{target.name} without a rounding to an integer")
    number = (SIGNED if target.signed else UNSIGNED)[target.width]
    least, most = int(np.iinfo(number).min), int(np.iinfo(number).max)

    def run(a: Bits) -> Bits:
        value = given.numbers(a)
        value = rounded((flushed(value) if "ftz" in modifiers else value).astype(np.float64))
        inside = (value > least) & (value < most)
        ends = np.where(value >= most, number(most), np.where(np.isnan(value), number(0), number(least)))
        return np.where(inside, np.where(inside, value, 0).astype(number), ends).view(UNSIGNED[target.width])

    return run


def _saturated(target: Kind, given: Kind) -> Callable[[Bits], Bits]:
    number = (SIGNED if target.signed else UNSIGNED)[target.width]
    ends = np.iinfo(number)

    def run(a: Bits) -> Bits:
        value = given.numbers(a)
        own = np.iinfo(value.dtype)
        return target.bits(np.clip(value, max(int(ends.min), int(own.min)), min(int(ends.max), int(own.max))).astype(number))

    return run


def _nearest_odd(numbers: Bits) -> Bits:
    """Integers of 32 or 64 bits as float32 rounded to odd, so that rounding to 16 bits once more is right."""
    near = numbers.astype(np.float64)
    if numbers.dtype.itemsize == 8:
        raise NotCoveredError("cvt from 64 bits to a 16-bit float")
    single = near.astype(np.float32)
    bits = single.view(np.int32)
    inexact = (single.astype(np.float64) != near) & ((bits & 1) == 0)
    away = np.abs(near) > np.abs(single.astype(np.float64))
    return np.where(inexact, bits + np.where(away, np.int32(1), np.int32(-1)), bits).view(np.float32)
