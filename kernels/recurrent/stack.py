"""What kernels.rnn, lstm and gru share: a stack of layers over [batch, time, features], its checks and its dispatch.

The operator is the whole stack, not one layer, because an implementation can use that: both directions of a layer can run side
by side, and layer l at step t beside layer l + 1 at step t - 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernels.recurrent import config as plans
from kernels.recurrent import cudnn, xla
from kernels.recurrent.cells import CELLS, CellWeights
from kernels.runtime import checks, dispatch, meshes

IMPLEMENTATIONS = ("xla", *dispatch.TRITON)
COOPERATIVE = ("triton",)  # has a barrier across its grid
Layers = Sequence[CellWeights | Sequence[CellWeights]]


def state_dtype(dtype: Any) -> jnp.dtype:
    """The dtype of the state of a sequence of `dtype`."""
    return jnp.promote_types(dtype, jnp.float32)


def run(
    cell: str,
    x: jax.Array,
    layers: Layers,
    initial_state: jax.Array | tuple[jax.Array, ...] | None,
    seq_lengths: jax.Array | Sequence[int] | None,
    reverse: bool,
    dropout: float,
    dropout_key: jax.Array | None,
    implementation: str | None,
) -> tuple[jax.Array, Any]:
    """What kernels.rnn, lstm and gru do with the arguments that they share.

    The products run in the dtype of x and the weights; the state and all sums are kept in float32 (float64 for float64).
    Gradients reach x, the weights and the initial state; "xla" has every derivative, the others the first gradient alone.

    Floor: x, the weights and the outputs once, where the weights stay on the chip for all steps; and steps that wait for each
    other, time * layers of them layer by layer, time + layers - 1 as a wavefront (docs/recurrent.md).

    Args:
      cell: one of `cells.CELLS`.
      x: [batch, time, features], floating point.
      layers: for each layer its `CellWeights`, or two of them: reading forward and backward in time. A layer with two
        directions gives their outputs side by side, [batch, time, 2 * out].
      initial_state: h [layers * directions, batch, out], for an LSTM (h, c) with c [layers * directions, batch, hidden], in
        torch's order (layer by layer, forward before backward); None for zeros.
      seq_lengths: [batch], the real steps of each sequence, from 1 to time; None if all are. Outputs of later steps are
        zero, the final state is that of the last real step, and the backward direction starts there.
      reverse: read from the last step to the first; only for layers of one direction.
      dropout: probability with which each value between two layers is dropped, in [0, 1); the others are scaled up.
      dropout_key: a jax.random.key; needed where `dropout` is not zero and there are at least two layers.
      implementation: see `kernels.runtime.dispatch`. "triton" multiplies float32 in three passes of tf32, also where
        `jax.default_matmul_precision` is "highest" or less; what it asks for by an algorithm's name other than TF32_TF32_F32_X3
        is left to "xla".

    Returns:
      outputs [batch, time, directions * out] in x's dtype, and the final state, shaped as the initial one.

    Raises:
      ValueError: shapes that do not fit each other, or a length outside 1..time (of lengths that are known when traced).
      TypeError: x is not floating point, or a weight has another dtype.
      ImplementationError: the implementation asked for does not exist or cannot run, for reasons that it lists.
    """
    checks.floating("x", x)
    checks.rank("x", x, "[batch, time, features]")
    if x.shape[1] == 0:
        raise ValueError(f"x: shape {x.shape} has no time step")
    stack = [(layer,) if isinstance(layer, CellWeights) else tuple(layer) for layer in layers]
    _check_layers(cell, x, stack, reverse)
    state = _state(cell, x, stack, initial_state)
    lengths = None if seq_lengths is None else _lengths(seq_lengths, x)
    scales = _dropout_scales(x, stack, dropout, dropout_key)
    reason = checks.hand_written(x) or plans.reason(cell, x, stack)
    arguments = (cell, x, stack, state, lengths, reverse, scales)

    operator = cell.split("_")[0]
    key = plans.shape_class(cell, x, stack)

    def choose(triton: str | None) -> str:
        has = {"xla": None, **dict.fromkeys(dispatch.TRITON, reason), "triton": triton}
        if cell == "lstm":
            has["cudnn"] = cudnn.reason(x, stack, reverse)
        if triton is None and jax.device_count() > 1 and dispatch.named(implementation, has) is None:
            has["triton"] = "of several devices, it may run beside a collective that its barrier then waits for"
        return dispatch.choose(operator, implementation, has, key, cooperative=COOPERATIVE)

    chosen = choose(reason)
    if x.shape[0] == 0:
        chosen = "xla"  # no sequence, no blocks for the kernels
    if chosen in dispatch.TRITON:
        from kernels.recurrent import persistent

        if chosen == "triton" and (not_resident := persistent.reason(*arguments, chosen)) is not None:
            chosen = choose(not_resident)
    if chosen in ("xla", "cudnn"):
        outputs, final = (xla if chosen == "xla" else cudnn).stack(*arguments)
    else:
        outputs, final = persistent.stack(*arguments, chosen)
    parts = tuple(jax.lax.collapse(part, 0, 2) for part in final)
    return outputs, parts if len(parts) > 1 else parts[0]


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
                "peepholes": (3, hidden),
            }
            for name, shape in needed.items():
                array, first = getattr(w, name), getattr(stack[0][0], name)
                if (array is None) != (first is None):
                    raise ValueError(f"layers[{number}].{name}: given in some layers or directions and not in others")
                if array is not None and array.shape != shape:
                    raise ValueError(f"layers[{number}].{name}: shape {array.shape} given, {shape} is needed")
                if array is not None and array.dtype != x.dtype:
                    raise TypeError(f"layers[{number}].{name}: dtype {array.dtype} is not that of x, {x.dtype}")
            if w.w_p is None and out != hidden:
                raise ValueError(f"layers[{number}].w_h: shape {w.w_h.shape} given, {(hidden, columns)} is needed")
            if w.w_p is not None and cell != "lstm":
                raise ValueError(f"layers[{number}].w_p: {cell} has no projection")
            if w.peepholes is not None and cell != "lstm":
                raise ValueError(f"layers[{number}].peepholes: {cell} has no cell state that a gate could peep at")
        features = directions * out


def _state(cell, x, stack, initial_state):
    """(h,) or (h, c), each [layers, directions, batch, units]."""
    layers, directions, batch = len(stack), len(stack[0]), x.shape[0]
    w_h = stack[0][0].w_h
    units = (w_h.shape[0], w_h.shape[1] // CELLS[cell].gates)[: CELLS[cell].state_size]
    dtype = state_dtype(x.dtype)
    if initial_state is None:
        zeros = (jnp.zeros((layers, directions, batch, n), dtype) for n in units)
        varying = meshes.varying_axes(x, *jax.tree.leaves(stack))  # as the state will from the first step on
        return tuple(meshes.vary(zero, varying) for zero in zeros)
    parts = tuple(jnp.asarray(part) for part in (initial_state if len(units) > 1 else (initial_state,)))
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
