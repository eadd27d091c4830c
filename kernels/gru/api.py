"""Gated recurrent unit over [batch, time, features]."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from kernels.recurrent import stack
from kernels.runtime import dispatch

IMPLEMENTATIONS = stack.IMPLEMENTATIONS
COOPERATIVE = stack.COOPERATIVE


@dispatch.operator(batch_axes=(0, 1))
def gru(
    x: jax.Array,
    layers: stack.Layers,
    initial_state: jax.Array | None = None,
    *,
    reset_after: bool = True,
    seq_lengths: jax.Array | Sequence[int] | None = None,
    reverse: bool = False,
    dropout: float = 0.0,
    dropout_key: jax.Array | None = None,
    implementation: str | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Gated recurrent unit (Cho et al. 2014), with the reset gate behind the recurrent product as in torch and cuDNN.

    With `reset_after=False` it is before the product, as in the paper: n = tanh(x w_xn + b_xn + (r h) w_hn + b_hn). That is
    Keras' argument of this name and the default of ONNX (linear_before_reset = 0); it takes "xla", since the hand-written
    kernels would have to wait for each other twice in every step.

    Arguments, dtypes, results, errors and floor are those of `kernels.recurrent.stack.run`. The state is the array h.
    """
    cell = "gru" if reset_after else "gru_reset_before"
    return stack.run(cell, x, layers, initial_state, seq_lengths, reverse, dropout, dropout_key, implementation)
