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

    The products run in the dtype of x and the weights; the state and all sums are kept in float32 (float64 for
    float64). Gradients reach x, the weights and the initial state, by reverse-mode differentiation, once.

    A projection (Sak et al. 2014) and peepholes (Gers, Schmidhuber 2000) take "xla".

    Floor: x, the weights and the outputs once, where the weights stay on the chip for all steps; and steps that wait for each
    other, time * layers of them layer by layer, time + layers - 1 as a wavefront (docs/recurrent.md).

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
      implementation: see `kernels.runtime.dispatch`. "cudnn" is float32 only, and runs where it is named. "triton" multiplies
        float32 in three passes of tf32, also where `jax.default_matmul_precision` is "highest" or less; what it asks for by an
        algorithm's name other than TF32_TF32_F32_X3 is left to "xla".

    Returns:
      outputs [batch, time, directions * out] in x's dtype, and the final state (h, c), shaped as the initial one.

    Raises:
      ValueError: shapes that do not fit each other, or a length outside 1..time (of lengths that are known when traced).
      TypeError: x is not floating point, or a weight has another dtype.
      ImplementationError: the implementation asked for does not exist or cannot run, for reasons that it lists.
    """
    outputs, (h, c) = stack.run(
        "lstm",
        x,
        layers,
        initial_state,
        seq_lengths=seq_lengths,
        reverse=reverse,
        dropout=dropout,
        dropout_key=dropout_key,
        implementation=implementation,
    )
    return outputs, (h, c)
