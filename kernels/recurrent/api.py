"""Recurrent networks over [batch, time, features]: a whole stack of layers in one call.

The stack is the operator, and not one layer of it, because that is what an implementation needs to see: both directions of a
layer can run side by side, and layer l can run at step t beside layer l + 1 at step t - 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernels import dispatch
from kernels.recurrent import xla
from kernels.recurrent.cells import CELLS, CellWeights

Layers = Sequence[CellWeights | Sequence[CellWeights]]


def rnn(
    x: jax.Array,
    layers: Layers,
    initial_state: jax.Array | None = None,
    *,
    activation: str = "tanh",
    seq_lengths: jax.Array | Sequence[int] | None = None,
    reverse: bool = False,
    dropout: float = 0.0,
    dropout_key: jax.Array | None = None,
    implementation: str | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Elman's recurrent network, h' = f(x w_x + b_x + h w_h + b_h), with f = `activation`, "tanh" or "relu".

    Arguments, errors and results as for `lstm`, but that the state is the single array h.
    """
    if activation not in ("tanh", "relu"):
        raise ValueError(f'activation: {activation!r} is neither "tanh" nor "relu"')
    state = None if initial_state is None else (initial_state,)
    outputs, (h,) = _run(f"rnn_{activation}", x, layers, state, seq_lengths, reverse, dropout, dropout_key, implementation)
    return outputs, h


def lstm(
    x: jax.Array,
    layers: Layers,
    initial_state: tuple[jax.Array, jax.Array] | None = None,
    *,
    seq_lengths: jax.Array | Sequence[int] | None = None,
    reverse: bool = False,
    dropout: float = 0.0,
    dropout_key: jax.Array | None = None,
    implementation: str | None = None,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Long short-term memory (Hochreiter and Schmidhuber 1997; with forget gates, Gers et al. 2000), equal to torch's.

    The products run in x's dtype, to which the weights are cast; the state and all sums are kept in float32 (float64 for
    float64). Gradients reach x, the weights and the initial state, by reverse-mode differentiation, once.

    Args:
      x: [batch, time, features], floating point.
      layers: for each layer its `CellWeights`, or two of them: reading forward and backward in time. A layer with two
        directions gives their outputs side by side, [batch, time, 2 * out].
      initial_state: (h, c), h [layers * directions, batch, out] and c [layers * directions, batch, hidden], in torch's
        order (layer by layer, forward before backward); None for zeros.
      seq_lengths: [batch], the real steps of each sequence, from 1 to time; None if all are. Outputs of later steps are
        zero, the final state is that of the last real step, and the backward direction starts there.
      reverse: read from the last step to the first; only for layers of one direction.
      dropout: probability with which each value between two layers is dropped, in [0, 1); the others are scaled up.
      dropout_key: a jax.random.key; needed where `dropout` is not zero and there are at least two layers.
      implementation: see `kernels.dispatch`.

    Returns:
      outputs [batch, time, directions * out] in x's dtype, and the final state (h, c), shaped as the initial one.

    Raises:
      ValueError: shapes that do not fit each other, or a length outside 1..time (of lengths that are known when traced).
      TypeError: x is not floating point.
    """
    return _run("lstm", x, layers, initial_state, seq_lengths, reverse, dropout, dropout_key, implementation)


def gru(
    x: jax.Array,
    layers: Layers,
    initial_state: jax.Array | None = None,
    *,
    seq_lengths: jax.Array | Sequence[int] | None = None,
    reverse: bool = False,
    dropout: float = 0.0,
    dropout_key: jax.Array | None = None,
    implementation: str | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Gated recurrent unit (Cho et al. 2014), with the reset gate behind the recurrent product as in torch and cuDNN.

    Arguments, errors and results as for `lstm`, but that the state is the single array h.
    """
    state = None if initial_state is None else (initial_state,)
    outputs, (h,) = _run("gru", x, layers, state, seq_lengths, reverse, dropout, dropout_key, implementation)
    return outputs, h


def state_dtype(dtype: Any) -> jnp.dtype:
    """In which the state of a sequence of `dtype` is kept."""
    return jnp.promote_types(dtype, jnp.float32)


def _run(cell, x, layers, initial_state, seq_lengths, reverse, dropout, dropout_key, implementation):
    x = jnp.asarray(x)
    _check_input(x)
    stack = [(layer,) if isinstance(layer, CellWeights) else tuple(layer) for layer in layers]
    _check_layers(cell, x, stack, reverse)
    stack = [tuple(CellWeights(*(None if w is None else w.astype(x.dtype) for w in ws)) for ws in layer) for layer in stack]
    state = _state(cell, x, stack, initial_state)
    if seq_lengths is not None:
        seq_lengths = _lengths(seq_lengths, x)
    scales = _dropout_scales(x, stack, dropout, dropout_key)
    dispatch.choose(cell.split("_")[0], implementation, {"xla": None})
    outputs, final = xla.stack(cell, x, stack, state, seq_lengths, reverse, scales)
    return outputs, tuple(part.reshape(-1, *part.shape[2:]) for part in final)


def _check_input(x: jax.Array) -> None:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x: dtype {x.dtype} is not a floating-point type")
    if x.ndim != 3 or x.shape[1] == 0:
        raise ValueError(f"x: shape {x.shape} is not [batch, time, features] with at least one step")


def _check_layers(cell: str, x: jax.Array, stack: list[tuple[CellWeights, ...]], reverse: bool) -> None:
    if not stack:
        raise ValueError("layers: empty, at least one layer is needed")
    gates, directions, features = CELLS[cell].gates, len(stack[0]), x.shape[2]
    if directions not in (1, 2) or any(len(layer) != directions for layer in stack):
        raise ValueError(f"layers: {[len(layer) for layer in stack]} directions given, each layer needs one, or each two")
    if reverse and directions == 2:
        raise ValueError("reverse: the layers have two directions, and the second one reads backward already")
    out = stack[0][0].w_h.shape[0]
    columns = stack[0][0].w_h.shape[-1]
    hidden = columns // gates
    if columns % gates:
        raise ValueError(f"layers[0].w_h: {columns} columns are no multiple of the {gates} gates of {cell}")
    for number, layer in enumerate(stack):
        for w in layer:
            needed = {
                "w_x": (features, columns),
                "w_h": (out, columns),
                "b_x": (columns,),
                "b_h": (columns,),
                "w_p": (hidden, out),
            }
            for name, shape in needed.items():
                array, first = getattr(w, name), getattr(stack[0][0], name)
                if (array is None) != (first is None):
                    raise ValueError(f"layers[{number}].{name}: given in some layers or directions and not in others")
                if array is not None and array.shape != shape:
                    raise ValueError(f"layers[{number}].{name}: shape {array.shape} given, {shape} is needed")
            if w.w_p is None and out != hidden:
                raise ValueError(f"layers[{number}].w_h: shape {w.w_h.shape} given, {(hidden, columns)} is needed")
            if w.w_p is not None and cell != "lstm":
                raise ValueError(f"layers[{number}].w_p: {cell} has no projection")
        features = directions * out


def _state(cell, x, stack, initial_state):
    """(h,) or (h, c), each [layers, directions, batch, units]."""
    layers, directions, batch = len(stack), len(stack[0]), x.shape[0]
    w_h = stack[0][0].w_h
    units = (w_h.shape[0], w_h.shape[1] // CELLS[cell].gates)[: CELLS[cell].state_size]
    dtype = state_dtype(x.dtype)
    if initial_state is None:
        return tuple(jnp.zeros((layers, directions, batch, n), dtype) for n in units)
    parts = tuple(jnp.asarray(part) for part in initial_state)
    needed = tuple((layers * directions, batch, n) for n in units)
    if tuple(part.shape for part in parts) != needed:
        given = " and ".join(str(part.shape) for part in parts)
        raise ValueError(f"initial_state: shape {given} given, {' and '.join(map(str, needed))} is needed")
    return tuple(part.astype(dtype).reshape(layers, directions, *part.shape[1:]) for part in parts)


def _lengths(seq_lengths, x):
    if not isinstance(seq_lengths, jax.Array):
        seq_lengths = np.asarray(seq_lengths)
    if seq_lengths.shape != x.shape[:1] or not jnp.issubdtype(seq_lengths.dtype, jnp.integer):
        raise ValueError(
            f"seq_lengths: {seq_lengths.dtype} of shape {seq_lengths.shape} given, integers of shape {x.shape[:1]} are needed"
        )
    if not isinstance(seq_lengths, jax.core.Tracer):
        values = np.asarray(seq_lengths)
        wrong = np.flatnonzero((values < 1) | (values > x.shape[1]))
        if wrong.size:
            raise ValueError(f"seq_lengths: {values[wrong[0]]} at position {wrong[0]}, allowed are 1 to {x.shape[1]} (time)")
    return jnp.asarray(seq_lengths)


def _dropout_scales(x, stack, dropout, dropout_key):
    """What multiplies each layer's input: None, or 0 and 1 / (1 - dropout), as [time, batch, features]."""
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout: {dropout} is outside [0, 1)")
    if dropout == 0 or len(stack) == 1:
        return [None] * len(stack)
    if dropout_key is None:
        raise ValueError("dropout_key: a jax.random.key is needed where dropout is not zero")
    batch, time, _ = x.shape
    scales: list[jax.Array | None] = [None]
    for layer in range(1, len(stack)):
        shape = (time, batch, stack[layer][0].w_x.shape[0])
        keep = jax.random.bernoulli(jax.random.fold_in(dropout_key, layer), 1 - dropout, shape)
        scales.append(jnp.where(keep, 1 / (1 - dropout), 0).astype(x.dtype))
    return scales
