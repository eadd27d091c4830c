"""Arithmetic of floating-point numbers as PTX defines it. Functions take and give numbers, not bits.

What PTX calls approximate (ex2.approx, rsqrt.approx, tanh.approx, div.full, ...) is computed here as exactly as float32 goes:
how far the hardware is off is not modelled.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kernels.verification.ptx.values import Bits

_HALF = np.uint64(1 << 28)  # of the 29 bits that a float64 has more than a float32: a tie
_LOW = np.uint64((1 << 29) - 1)
_SMALLEST = 2.0**-126  # normal number of float32


def fused(a: Bits, b: Bits, c: Bits) -> Bits:
    """a * b + c in float32, rounded once.

    In float64 the product is exact and the sum is rounded; rounding it to float32 goes wrong only where the float64 lies in the
    middle between two float32, or where the float32 is subnormal. There the sum is rounded to odd first (Boldo and Melquiond,
    2008).
    """
    product, addend = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    total = product + addend
    if not (((total.view(np.uint64) & _LOW) == _HALF) | ((np.abs(total) < _SMALLEST) & (total != 0))).any():
        return total.astype(np.float32)
    return to_odd(product, addend, total).astype(np.float32)


def to_odd(a: Bits, b: Bits, total: Bits) -> Bits:
    """The sum a + b of float64, whose nearest float64 is `total`, rounded to odd: inexact sums end in a one."""
    virtual = total - a
    rest = (a - (total - virtual)) + (b - virtual)  # exact (Knuth's TwoSum)
    bits = total.view(np.int64)
    inexact = (rest != 0) & np.isfinite(total) & ((bits & 1) == 0)
    towards = np.where((rest > 0) == (total > 0), np.int64(1), np.int64(-1))
    return np.where(inexact, bits + towards, bits).view(np.float64)


def fused_half(a: Bits, b: Bits, c: Bits) -> Bits:
    """a * b + c of 16-bit floats, given as float32, rounded to odd in float32: rounding it once more is right."""
    product, addend = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    exact = to_odd(product, addend, product + addend)
    near = exact.astype(np.float32)
    bits = near.view(np.int32)
    inexact = (near.astype(np.float64) != exact) & np.isfinite(near) & ((bits & 1) == 0)
    away = np.abs(exact) > np.abs(near.astype(np.float64))
    return np.where(inexact, bits + np.where(away, np.int32(1), np.int32(-1)), bits).view(np.float32)


def extreme(largest: bool, propagate: bool) -> Callable[[Bits, Bits], Bits]:
    """max and min: +0 is more than -0, and a NaN is taken only where both are, or where .NaN asks for it."""
    pick = {(True, True): np.maximum, (True, False): np.fmax, (False, True): np.minimum, (False, False): np.fmin}[
        largest, propagate
    ]
    zero: Callable[[Bits, Bits], Bits] = np.add if largest else lambda a, b: -(-a - b)

    def run(a: Bits, b: Bits) -> Bits:
        found = pick(a, b)
        return np.where((a == 0) & (b == 0), zero(a, b), found) if (found == 0).any() else found

    return run


def _unordered(a: Bits, b: Bits) -> Bits:
    return np.isnan(a) | np.isnan(b)


ORDERED = {"eq": np.equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}
# Comparisons of floats: false where a number is a NaN; with a u behind their name true.
COMPARISONS: dict[str, Callable[[Bits, Bits], Bits]] = {
    **ORDERED,
    "ne": lambda a, b: (a != b) & ~_unordered(a, b),
    "equ": lambda a, b: (a == b) | _unordered(a, b),
    "neu": np.not_equal,
    "ltu": lambda a, b: ~(a >= b),
    "leu": lambda a, b: ~(a > b),
    "gtu": lambda a, b: ~(a <= b),
    "geu": lambda a, b: ~(a < b),
    "num": lambda a, b: ~_unordered(a, b),
    "nan": _unordered,
}


def _through_float64(function: Callable[[Bits], Bits]) -> Callable[[Bits], Bits]:
    return lambda a: function(a.astype(np.float64)).astype(a.dtype)


FUNCTIONS: dict[str, Callable[[Bits], Bits]] = {
    "ex2": _through_float64(np.exp2),
    "lg2": _through_float64(np.log2),
    "sin": _through_float64(np.sin),
    "cos": _through_float64(np.cos),
    "tanh": _through_float64(np.tanh),
    "sqrt": np.sqrt,
    "rcp": _through_float64(np.reciprocal),
    "rsqrt": _through_float64(lambda a: 1 / np.sqrt(a)),
}
