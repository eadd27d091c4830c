"""Elman's recurrent network over [batch, time, features]."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from kernels.recurrent import stack
from kernels.runtime import dispatch

IMPLEMENTATIONS = stack.IMPLEMENTATIONS
COOPERATIVE = stack.COOPERATIVE


@dispatch.operator(batch_axes=(0, 1))
def rnn(
    x: jax.Array,
    layers: stack.Layers,
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

    Elman 1990, Finding structure in time. Arguments, dtypes, results, errors and floor are those of
    `kernels.recurrent.stack.run`; an unknown activation is a ValueError too. The state is the array h.
    """
    if activation not in ("tanh", "relu"):
        raise ValueError(f'activation: {activation!r} is neither "tanh" nor "relu"')
    cell = f"rnn_{activation}"
    return stack.run(cell, x, layers, initial_state, seq_lengths, reverse, dropout, dropout_key, implementation)
