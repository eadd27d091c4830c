"""Max pooling in plain JAX."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernels.runtime import dispatch
from kernels.runtime.apart import apart
from kernels.runtime.derivatives import differentiable

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
UNROLLED = 64  # positions of a window up to which the CPU form is unrolled
VECTOR = 8  # float32 numbers in a register of AVX
CLOSE = (1, 1)  # dilation of a window whose elements are neighbours


def max_pool(x: jax.Array, window: Pair, strides: Pair, pads: Pads, dilation: Pair = CLOSE) -> jax.Array:
    """XLA's reduce-window; on a CPU a form of equal result whose gradient is 5 to 50 times faster there.

    That form also takes dilated windows everywhere: XLA's has no gradient of those.
    """
    if dilation != CLOSE or (dispatch.device().platform == "cpu" and window[0] * window[1] <= UNROLLED):
        return by_position(x, window, strides, pads, dilation)
    return reduce_window(x, window, strides, pads)


def reduce_window(x: jax.Array, window: Pair, strides: Pair, pads: Pads, dilation: Pair = CLOSE) -> jax.Array:
    """The reference. Its gradient is XLA's select-and-scatter."""
    pads = ((0, 0), *pads, (0, 0))  # type: ignore[assignment]
    spaced = (1, *dilation, 1)
    return jax.lax.reduce_window(x, -np.inf, jax.lax.max, (1, *window, 1), (1, *strides, 1), pads, None, spaced)


def by_position(x: jax.Array, window: Pair, strides: Pair, pads: Pads, dilation: Pair = CLOSE) -> jax.Array:
    """The maximum over shifted, strided slices; the gradient goes where a position kept in one byte says."""

    # Where channels do not fill a vector, a CPU takes most of its time for indices, and each element that fusion computes twice
    # takes them twice.
    narrow = dispatch.device().platform == "cpu" and x.shape[-1] < VECTOR
    find, spread = (_apart if narrow else _parts)(x.shape[1:3], window, strides, pads, dilation)

    def backward(position, dy):
        return (spread(dy, position),)

    return differentiable(lambda x: maximum(x, window, strides, pads, dilation), find, backward)(x)


def _parts(size: tuple[int, ...], window: Pair, strides: Pair, pads: Pads, dilation: Pair) -> tuple[Callable, Callable]:
    """Maximum and position of x, and the gradient of x from dy and position."""
    geometry: dict[str, Any] = {"window": window, "strides": strides, "pads": pads, "dilation": dilation}
    return functools.partial(maximum_and_position, **geometry), functools.partial(input_gradient, size=size, **geometry)


@functools.cache
def _apart(*geometry: Any) -> tuple[Callable, Callable]:
    """The same, each compiled apart; once, also where nothing around is compiled."""
    find, spread = _parts(*geometry)
    return apart(find), apart(spread)


def maximum(x: jax.Array, window: Pair, strides: Pair, pads: Pads, dilation: Pair = CLOSE) -> jax.Array:
    """The same in forward mode: each maximum moves as the element at its position."""
    position = maximum_and_position(jax.lax.stop_gradient(x), window, strides, pads, dilation)[1]
    places = _places(jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf), window, strides, dilation)
    return functools.reduce(lambda y, k: jnp.where(position == k, places[k], y), range(1, len(places)), places[0])


def _places(x: jax.Array, window: Pair, strides: Pair, dilation: Pair) -> list[jax.Array]:
    """For each position in the window (row-major), the elements of the padded x that are there in the windows."""
    spread = [(w - 1) * d + 1 for w, d in zip(window, dilation, strict=True)]
    height, width = ((n - w) // s + 1 for n, w, s in zip(x.shape[1:3], spread, strides, strict=True))
    return [
        x[:, i : i + (height - 1) * strides[0] + 1 : strides[0], j : j + (width - 1) * strides[1] + 1 : strides[1]]
        for i in range(0, spread[0], dilation[0])
        for j in range(0, spread[1], dilation[1])
    ]


def maximum_and_position(
    x: jax.Array, window: Pair, strides: Pair, pads: Pads, dilation: Pair = CLOSE
) -> tuple[jax.Array, jax.Array]:
    """The maximum of each window and where in the window (row-major) it is first; a NaN counts as the maximum.

    The position is uint8, or int32 where the window has more than 256 of them.
    """
    best, *others = _places(jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf), window, strides, dilation)
    height, width = best.shape[1:3]
    # At first the first place inside the input: it stands where all elements are minus infinity.
    first_row = -(np.minimum(strides[0] * np.arange(height) - pads[0][0], 0) // dilation[0])
    first_column = -(np.minimum(strides[1] * np.arange(width) - pads[1][0], 0) // dilation[1])
    kind = np.uint8 if window[0] * window[1] <= 256 else np.int32
    first = (first_row[:, None] * window[1] + first_column).astype(kind)
    position = jnp.broadcast_to(first[:, :, None], best.shape)
    for k, here in enumerate(others, 1):
        wins = (here > best) | (here != here)
        best, position = jnp.where(wins, here, best), jnp.where(wins, kind(k), position)
    return best, position


def input_gradient(
    dy: jax.Array,
    position: jax.Array,
    size: tuple[int, ...],
    window: Pair,
    strides: Pair,
    pads: Pads,
    dilation: Pair = CLOSE,
) -> jax.Array:
    """The gradient of x, of height and width `size`: each of dy at the position of its maximum."""
    if window == strides and dilation == CLOSE:
        dx = _spread_tiles(dy, position, window)
    else:
        dx = _gather_windows(dy, position, window, strides, dilation)
    (top, _), (left, _) = pads
    missing = [max(0, low + n - m) for low, n, m in zip((top, left), size, dx.shape[1:3], strict=True)]
    dx = jnp.pad(dx, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)))  # trailing rows and columns that no window sees
    return dx[:, top : top + size[0], left : left + size[1]]


def _spread_tiles(dy: jax.Array, position: jax.Array, window: Pair) -> jax.Array:
    """The gradient of windows that do not overlap: each fills its own tile."""
    batch, height, width, channels = dy.shape
    within = jnp.arange(window[0] * window[1], dtype=jnp.uint8).reshape(1, 1, window[0], 1, window[1], 1)
    tiles = jnp.where(position[:, :, None, :, None] == within, dy[:, :, None, :, None], 0)
    return tiles.reshape(batch, height * window[0], width * window[1], channels)


def _gather_windows(dy: jax.Array, position: jax.Array, window: Pair, strides: Pair, dilation: Pair) -> jax.Array:
    """The gradient where windows overlap. Input rows and columns that share a remainder by the stride see the same offsets of
    the windows over them, so each such phase is a short sum of shifted slices; interleaved, the phases are the input."""
    # how many earlier windows see the same element
    reach = [(w - 1) * d // s for w, s, d in zip(window, strides, dilation, strict=True)]
    edges = ((0, 0), (reach[0], reach[0]), (reach[1], reach[1]), (0, 0))
    dy = jnp.pad(dy, edges)
    position = jnp.pad(position, edges)
    batch, height, width, channels = dy.shape
    height, width = height - reach[0], width - reach[1]
    rows = []
    for a in range(strides[0]):
        columns = []
        for b in range(strides[1]):
            phase = jnp.zeros((batch, height, width, channels), dy.dtype)
            for i, j in itertools.product(range(window[0]), range(window[1])):
                (ahead, row), (aside, column) = divmod(i * dilation[0], strides[0]), divmod(j * dilation[1], strides[1])
                if (row, column) == (a, b):
                    top, left = reach[0] - ahead, reach[1] - aside
                    seen = (slice(None), slice(top, top + height), slice(left, left + width))
                    phase += jnp.where(position[seen] == i * window[1] + j, dy[seen], 0)
            columns.append(phase)
        rows.append(jnp.stack(columns, axis=3))
    return jnp.stack(rows, axis=2).reshape(batch, height * strides[0], width * strides[1], channels)
