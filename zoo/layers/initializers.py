"""Initial values: `f(key, shape, dtype)`, named after what torch's layers draw.

Random numbers are drawn in blocks of one size. A program that draws an array of some shape takes XLA a third of a second to
compile, for each shape anew, so GoogLeNet would wait half a minute for sixty of them; a block is compiled once. The values
are the same inside and outside of jit.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from kernels.runtime.sizes import cdiv

Initializer = Callable[..., jax.Array]

_BLOCK = 2**16
_LARGE = 2**20  # elements; smaller arrays are drawn in no time
_DISTRIBUTIONS: dict[str, Callable] = {
    "normal": jax.random.normal,
    "uniform": functools.partial(jax.random.uniform, minval=-1.0, maxval=1.0),
}


@functools.partial(jax.jit, static_argnames=("distribution", "dtype"))
def _block(key: jax.Array, index: jax.Array, distribution: str, dtype: Any) -> jax.Array:
    return _DISTRIBUTIONS[distribution](jax.random.fold_in(key, index), (_BLOCK,), dtype)


def _draw(distribution: str, key: jax.Array, shape: tuple[int, ...], dtype: Any, scale: float) -> jax.Array:
    size = math.prod(shape)
    numbers = np.arange(cdiv(size, _BLOCK), dtype=np.uint32)
    wide = np.dtype(jnp.promote_types(dtype, jnp.float32))
    block = functools.partial(_block, key, distribution=distribution, dtype=wide)
    if isinstance(key, jax.core.Tracer):
        return (jax.lax.map(block, numbers).reshape(-1)[:size].reshape(shape) * scale).astype(dtype)
    drawn = np.concatenate([np.asarray(block(number)) for number in numbers] or [np.zeros(0, wide)])
    return jnp.asarray((drawn[:size].reshape(shape) * scale).astype(dtype))


def normal(deviation: float) -> Initializer:
    """Normal with mean zero."""
    return lambda key, shape, dtype=jnp.float32: _draw("normal", key, shape, dtype, deviation)


def uniform(bound: float) -> Initializer:
    """Uniform from -bound to bound."""
    return lambda key, shape, dtype=jnp.float32: _draw("uniform", key, shape, dtype, bound)


def fan_in_uniform(fan_in: int) -> Initializer:
    """Uniform within 1 / sqrt(fan_in), for a bias, whose own shape does not tell the fan-in."""
    return uniform(fan_in**-0.5)


def kaiming_uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Uniform within 1 / sqrt(fan_in): torch's kaiming_uniform_(a=sqrt(5)), the default of its Linear and Conv2d."""
    return _draw("uniform", key, shape, dtype, math.prod(shape[:-1]) ** -0.5)


def kaiming_normal(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Normal with variance 2 / fan_in (He et al. 2015)."""
    return _draw("normal", key, shape, dtype, (2 / math.prod(shape[:-1])) ** 0.5)


def kaiming_normal_fan_out(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Normal with variance 2 / fan_out: torch's kaiming_normal_(mode="fan_out", nonlinearity="relu") of a convolution."""
    return _draw("normal", key, shape, dtype, (2 / (math.prod(shape[:-2]) * shape[-1])) ** 0.5)


def zeros(key: jax.Array | None, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Zeros; no key is needed, and nothing is compiled for them either."""
    return jnp.asarray(np.zeros(shape, dtype))


def ones(key: jax.Array | None, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Ones; no key is needed."""
    return jnp.asarray(np.ones(shape, dtype))


class Postponed:
    """Large kernels that were not drawn, since weights are to be loaded into them: zeros, and how to draw what stays."""

    def __init__(self) -> None:
        self._drawn_by: dict[int, tuple[jax.Array, Callable[[], jax.Array]]] = {}

    def zeros(self, draw: Callable[[], jax.Array], shape: tuple[int, ...], dtype: Any) -> jax.Array:
        array = jnp.asarray(np.zeros(shape, dtype))  # NumPy's zeros take no memory before something reads them
        self._drawn_by[id(array)] = array, draw
        return array

    def are_in(self, model: nnx.Module) -> bool:
        """Whether the model holds each of them as it is, so that `draw` will find it."""
        return self._drawn_by.keys() <= {id(variable.get_value()) for variable in _variables(model)}

    def draw(self, model: nnx.Module) -> None:
        """Draw those that the model still holds."""
        for variable in _variables(model):
            if waiting := self._drawn_by.get(id(variable.get_value())):
                variable.set_value(waiting[1]())


def _variables(model: nnx.Module) -> list[nnx.Variable]:
    return [node for _, node in nnx.iter_graph(model) if isinstance(node, nnx.Variable)]


_postponed: contextvars.ContextVar[Postponed | None] = contextvars.ContextVar("postponed", default=None)


@contextlib.contextmanager
def postponed() -> Iterator[Postponed]:
    """Within it `kernel` draws no large array."""
    token = _postponed.set(waiting := Postponed())
    try:
        yield waiting
    finally:
        _postponed.reset(token)


def kernel(initializer: Initializer, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """What the initializer draws; within `postponed`, outside of a trace, zeros in place of a large array."""
    waiting, draw = _postponed.get(), functools.partial(initializer, key, shape, dtype)
    if waiting is None or math.prod(shape) < _LARGE or isinstance(key, jax.core.Tracer):
        return draw()
    return waiting.zeros(draw, shape, dtype)
