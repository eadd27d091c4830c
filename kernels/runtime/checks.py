"""Checks of arguments that several operators share: each error names the argument, what was given and what is allowed."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from kernels.runtime.sizes import cdiv

LOW_PRECISION = (jnp.bfloat16, jnp.float16, jnp.float32)  # what the hand-written kernels take; "xla" also takes float64


def floating(name: str, x: jax.Array) -> None:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name}: dtype {x.dtype} is not a floating-point type")


def rank(name: str, x: jax.Array, dims: str) -> None:
    """`dims` names the dimensions, such as "[batch, height, width, channels]"."""
    if x.ndim != dims.count(",") + 1:
        raise ValueError(f"{name}: shape {x.shape} is not {dims}")


def shape(name: str, x: jax.Array, expected: tuple[int, ...], why: str) -> None:
    if x.shape != expected:
        raise ValueError(f"{name}: shape {x.shape} is not {expected}, {why}")


def pair(name: str, value: int | Sequence[int], minimum: int = 1) -> tuple[int, int]:
    """`value`, an int or two, as (vertical, horizontal)."""
    try:
        values = (operator.index(value),) * 2  # type: ignore[arg-type]
    except TypeError:
        values = tuple(operator.index(v) for v in value)  # type: ignore[union-attr, assignment]
    if len(values) != 2 or min(values) < minimum:
        raise ValueError(f"{name}: {value!r} is not an int or a pair of ints, each at least {minimum}")
    return values


def spatial_padding(
    padding: str | Sequence[Sequence[int]],
    size: Sequence[int],
    window: Sequence[int],
    strides: tuple[int, int],
) -> tuple[tuple[int, int], tuple[int, int]]:
    """`padding` as ((top, bottom), (left, right)). "SAME" gives ceil(size / stride) outputs, odd padding last."""
    if isinstance(padding, str):
        if padding.upper() == "VALID":
            return (0, 0), (0, 0)
        if padding.upper() == "SAME":
            totals = [max((cdiv(n, s) - 1) * s + w - n, 0) for n, w, s in zip(size, window, strides, strict=True)]
            return (totals[0] // 2, totals[0] - totals[0] // 2), (totals[1] // 2, totals[1] - totals[1] // 2)
        raise ValueError(f'padding: {padding!r} is neither "VALID", "SAME" nor ((top, bottom), (left, right))')
    try:
        (top, bottom), (left, right) = ((operator.index(low), operator.index(high)) for low, high in padding)
    except (TypeError, ValueError):
        raise ValueError(f'padding: {padding!r} is neither "VALID", "SAME" nor ((top, bottom), (left, right))') from None
    if min(top, bottom, left, right) < 0:
        raise ValueError(f"padding: {padding!r} holds a negative number; crop the input instead")
    return (top, bottom), (left, right)


def exceeds(count: int, limit: int) -> bool:
    """Whether a count is known, not a symbol of jax.export, and above the limit."""
    return isinstance(count, int) and count > limit


def less_than_window(padding: object, pads: Sequence[tuple[int, int]], window: Sequence[int]) -> None:
    if any(max(pad) >= w for pad, w in zip(pads, window, strict=True)):
        raise ValueError(f"padding: {padding!r} is not less than window={window} everywhere: a window would see padding only")


def window_fits(size: Sequence[int], window: Sequence[int], pads: Sequence[tuple[int, int]]) -> None:
    if any(n + sum(pad) < w for n, w, pad in zip(size, window, pads, strict=True)):
        raise ValueError(f"window: {window} is larger than x of height and width {size} with padding {pads}")


def with_ceil_mode(
    size: Sequence[int], window: Sequence[int], strides: Sequence[int], pads: Sequence[tuple[int, int]]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The padding with which flooring gives the outputs that torch's ceil_mode asks for."""

    def one(size: int, window: int, stride: int, pad: tuple[int, int]) -> tuple[int, int]:
        low, high = pad
        outputs = cdiv(size + low + high - window, stride) + 1
        if (outputs - 1) * stride >= size + low:  # the last window would start beyond the input
            outputs -= 1
        return low, max(high, (outputs - 1) * stride + window - size - low)

    rows, columns = (one(*axis) for axis in zip(size, window, strides, pads, strict=True))
    return rows, columns


def hand_written(*arrays: jax.Array | None) -> str | None:
    """Why a hand-written kernel does not take these arrays; None if it does."""
    for array in arrays:
        if array is not None and array.dtype not in LOW_PRECISION:
            return f"it takes bfloat16, float16 and float32, and was given {array.dtype}"
    return None


def shape_class(*arrays: jax.Array) -> str:
    """Key of the measured choice of an implementation: "256x56x56x64:bfloat16" for each array."""
    return " ".join(f"{'x'.join(map(str, a.shape))}:{a.dtype}" for a in arrays)
