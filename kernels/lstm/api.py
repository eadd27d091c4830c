"""Long short-term memory over [batch, time, features]."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from kernels.recurrent import stack
from kernels.runtime import dispatch

IMPLEMENTATIONS = (*stack.IMPLEMENTATIONS, "cudnn")
COOPERATIVE = stack.COOPERATIVE


@dispatch.operator(batch_axes=(0, 1))
def lstm(
    x: jax.Array,
    layers: stack.Layers,
    initial_state: tuple[jax.Array, jax.Array] | None = None,
    *,
    seq_lengths: jax.Array | Sequence[int] | None = None,
    reverse: bool = False,
    dropout: float = 0.0,
    dropout_key: jax.Array | None = None,
    implementation: str | None = None,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Long short-term memory (Hochreiter and Schmidhuber 1997; with forget gates, Gers et al. 2000), equal to torch's.

    Arguments, dtypes, results, errors and floor are those of `kernels.recurrent.stack.run`. The state is the pair (h, c).

    A projection (Sak et al. 2014) and peepholes (Gers, Schmidhuber 2000) take "xla". "cudnn" is float32 only, and runs where it
    is named.
    """
    return stack.run("lstm", x, layers, initial_state, seq_lengths, reverse, dropout, dropout_key, implementation)
