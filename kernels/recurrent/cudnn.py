"""cuDNN's LSTM, through jax.experimental.rnn: in float32, as a peer for the persistent kernels."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from kernels.recurrent.cells import CellWeights
from kernels.runtime import precision


def reason(x: jax.Array, layers: Sequence[tuple[CellWeights, ...]], reverse: bool) -> str | None:
    """Why cuDNN does not take these arguments; None if it does."""
    if x.dtype != jnp.float32:
        return f"it takes float32, and was given {x.dtype}"
    if (unanswered := precision.reason(x.dtype, (precision.ONE_PASS, precision.EXACT))) is not None:
        return unanswered
    if layers[0][0].w_p is not None:
        return "it has no projection"
    if layers[0][0].peepholes is not None:
        return "it has no peepholes"
    if reverse:
        return "it reads backward only beside a forward direction"
    return None


def packed(layers: Sequence[tuple[CellWeights, ...]]) -> jax.Array:
    """All weights as the one vector that cuDNN takes.

    Layer by layer, forward before backward: first every w_x and w_h, one row per gate and unit, then every b_x and b_h.
    """
    every = [w for layer in layers for w in layer]
    none = jnp.zeros(every[0].w_h.shape[1], every[0].w_h.dtype)
    matrices = [matrix.T.ravel() for w in every for matrix in (w.w_x, w.w_h)]
    biases = [none if bias is None else bias for w in every for bias in (w.b_x, w.b_h)]
    return jnp.concatenate(matrices + biases)


def stack(
    cell: str,
    x: jax.Array,
    layers: Sequence[tuple[CellWeights, ...]],
    initial_state: tuple[jax.Array, ...],
    seq_lengths: jax.Array | None,
    reverse: bool,
    dropout_scales: Sequence[jax.Array | None],
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """As `xla.stack`, for what `reason` lets through: one call, or one for each layer where something is dropped in between.

    Matrix products are as precise as jax.default_matmul_precision says: one pass of tf32 unless it is "highest" or F32_F32_F32.
    """
    lengths = jnp.full(x.shape[0], x.shape[1], jnp.int32) if seq_lengths is None else seq_lengths.astype(jnp.int32)
    at_once = len(layers) if all(scale is None for scale in dropout_scales) else 1
    finals = []
    for first in range(0, len(layers), at_once):
        some = slice(first, first + at_once)
        if (scale := dropout_scales[first]) is not None:
            x = x * jnp.swapaxes(scale, 0, 1)
        x, final = _call(x, layers[some], [part[some] for part in initial_state], lengths)
        finals.append(final)
    return x, tuple(jnp.concatenate(parts) for parts in zip(*finals, strict=True))


def _call(x, layers, state, lengths):
    from jax.experimental import rnn

    h, c = (part.reshape(-1, *part.shape[2:]) for part in state)
    outputs, *final = rnn.lstm(
        x,
        h,
        c,
        packed(layers),
        lengths,
        input_size=x.shape[2],
        hidden_size=h.shape[2],
        num_layers=len(layers),
        dropout=0.0,
        bidirectional=len(layers[0]) == 2,
        # By a name that this function knows: it takes others for "high", or raises.
        precision="highest" if precision.way(x.dtype) == precision.EXACT else "high",
    )
    return outputs, [part.reshape(before.shape) for part, before in zip(final, state, strict=True)]
