"""Stacks of recurrent layers, equal to torch's RNN, LSTM and GRU."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import kernels
from zoo.layers.initializers import fan_in_uniform
from zoo.layers.operators import implementation_scope
from zoo.weights.names import TorchTensor

State = jax.Array | tuple[jax.Array, jax.Array]

_GATES = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 3}


class Recurrent(nnx.Module):
    """A stack of recurrent layers over [batch, time, input_size].

    The same function as torch.nn.RNN, LSTM or GRU with batch_first=True, and with packed sequences where `seq_lengths` is
    given. The weights are w_x_l0, w_h_l0_reverse and so on, shaped as in `kernels.CellWeights`, the transpose of torch's
    weight_ih_l0, ...; torch's two biases are kept, so weights convert both ways without loss.

    Args:
      cell: "rnn_tanh", "rnn_relu", "lstm" or "gru".
      input_size: features per time step.
      hidden_size: units per layer and direction.
      num_layers: layers; each reads the outputs of the one before.
      bidirectional: whether each layer has a second direction, which reads from the last step to the first.
      dropout: probability with which each value between two layers is dropped in training mode, in [0, 1).
      proj_size: of an LSTM, the size to which outputs are projected (Sak et al. 2014); 0 for no projection.
      bias: whether to add biases.
      reset_after: of a GRU, whether the reset gate is applied after the recurrent product, as in torch; see kernels.gru.
      dtype: dtype of inputs, outputs and products; None for the promotion of input and weights. The state is kept in at
        least float32.
      param_dtype: dtype of the weights.
      implementation: see `kernels.recurrent.stack.run`.
      rngs: draws the initial weights, uniform within 1 / sqrt(hidden_size) as in torch, and the dropout.

    Raises:
      ValueError: an argument outside what is allowed.
    """

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        *,
        proj_size: int = 0,
        bias: bool = True,
        reset_after: bool = True,
        dtype: jnp.dtype | type | None = None,
        param_dtype: jnp.dtype | type = jnp.float32,
        implementation: str | None = None,
        deterministic: bool = False,
        rngs: nnx.Rngs,
    ):
        if cell not in _GATES:
            raise ValueError(f"cell: {cell!r} given, it must be one of {', '.join(_GATES)}")
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
            if size < 1:
                raise ValueError(f"{name}: {size} given, at least 1 is needed")
        if proj_size and (cell != "lstm" or not 0 < proj_size < hidden_size):
            raise ValueError(
                f"proj_size: {proj_size} given, it must be 0, or for an lstm from 1 to hidden_size - 1 = {hidden_size - 1}"
            )
        if not reset_after and cell != "gru":
            raise ValueError(f"reset_after: False given, and {cell} has no reset gate")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: {dropout} is outside [0, 1)")
        self.cell, self.input_size, self.hidden_size, self.num_layers = cell, input_size, hidden_size, num_layers
        self.bidirectional, self.proj_size, self.dropout = bidirectional, proj_size, dropout
        self.reset_after = reset_after
        self.num_directions = 2 if bidirectional else 1
        self.output_size = self.num_directions * (proj_size or hidden_size)
        self.dtype, self.implementation, self.deterministic = dtype, implementation, deterministic
        init, columns = fan_in_uniform(hidden_size), _GATES[cell] * hidden_size
        self._suffixes = tuple(
            tuple(f"_l{layer}{end}" for end in ("", "_reverse")[: self.num_directions]) for layer in range(num_layers)
        )
        for layer, suffixes in enumerate(self._suffixes):
            shapes = {
                "w_x": (self.output_size if layer else input_size, columns),
                "w_h": (proj_size or hidden_size, columns),
                "b_x": (columns,) if bias else None,
                "b_h": (columns,) if bias else None,
                "w_p": (hidden_size, proj_size) if proj_size else None,
            }
            for suffix in suffixes:
                for name, shape in shapes.items():
                    if shape is not None:
                        setattr(self, name + suffix, nnx.Param(init(rngs.params(), shape, param_dtype)))
        self.rngs = rngs.dropout.fork() if dropout and num_layers > 1 else None

    def set_view(self, deterministic: bool | None = None) -> None:
        """Called by nnx.view; `deterministic` switches the dropout off."""
        if deterministic is not None:
            self.deterministic = deterministic

    def __call__(
        self, x: jax.Array, initial_state: State | None = None, seq_lengths: jax.Array | Sequence[int] | None = None
    ) -> tuple[jax.Array, State]:
        """Run over a whole sequence.

        Args:
          x: [batch, time, input_size].
          initial_state: [num_layers * num_directions, batch, hidden_size], layer by layer, forward before backward; for an
            LSTM a pair of them, of which the first (h) is [..., proj_size] where there is a projection. None for zeros.
          seq_lengths: [batch], the real steps of each sequence, 1 to time; None if all are real.

        Returns:
          outputs: [batch, time, output_size], zero at steps that are not real; forward direction first.
          final_state: shaped as `initial_state`, after the last real step (for the backward direction, the first step).

        Raises:
          ValueError: a shape that does not fit, or a length outside 1..time.
        """
        if x.ndim != 3 or x.shape[-1] != self.input_size:
            raise ValueError(f"x: shape {x.shape} given, [batch, time, {self.input_size}] is needed")
        dtype = self.dtype or jnp.result_type(x, getattr(self, "w_x" + self._suffixes[0][0])[...])
        x, layers = x.astype(dtype), [[self._weights(suffix, dtype) for suffix in layer] for layer in self._suffixes]
        rngs = None if self.deterministic else self.rngs
        options: dict[str, Any] = {
            "seq_lengths": seq_lengths,
            "dropout": 0.0 if rngs is None else self.dropout,
            "dropout_key": None if rngs is None else rngs(),
        }
        with implementation_scope(self.implementation):
            if self.cell == "lstm":
                return kernels.lstm(x, layers, initial_state, **options)  # type: ignore[arg-type]
            if self.cell == "gru":
                return kernels.gru(x, layers, initial_state, reset_after=self.reset_after, **options)  # type: ignore[arg-type]
            return kernels.rnn(x, layers, initial_state, activation=self.cell.removeprefix("rnn_"), **options)  # type: ignore[arg-type]

    def zero_state(self, batch_size: int) -> State:
        """The state that a sequence starts with where none is given: zeros, shaped as `initial_state`, float32."""
        rows = self.num_layers * self.num_directions
        h = jnp.zeros((rows, batch_size, self.proj_size or self.hidden_size))
        return (h, jnp.zeros((rows, batch_size, self.hidden_size))) if self.cell == "lstm" else h

    def step(self, x: jax.Array, state: State | None = None) -> tuple[jax.Array, State]:
        """One time step, for streaming: [batch, input_size] and the state so far (None at the start) to output and new state.

        Successive steps give the same outputs as one call on the whole sequence.

        Raises:
          ValueError: the layers are bidirectional, and so need the future.
        """
        if self.bidirectional:
            raise ValueError("step: a bidirectional layer needs the whole sequence, and cannot be run step by step")
        if x.ndim != 2:
            raise ValueError(f"x: shape {x.shape} given, [batch, {self.input_size}] is needed")
        outputs, state = self(x[:, None], state)
        return outputs[:, 0], state

    def torch_tensors(self) -> dict[str, TorchTensor]:
        """Torch's weight_ih_l0, weight_hh_l0_reverse, ... (see zoo/weights/names.py)."""
        names = {"w_x": "weight_ih", "w_h": "weight_hh", "b_x": "bias_ih", "b_h": "bias_hh", "w_p": "weight_hr"}
        tensors = {}
        for suffix in itertools.chain(*self._suffixes):
            for ours, theirs in names.items():
                param = getattr(self, ours + suffix, None)
                if param is not None:
                    transposed = (np.transpose, np.transpose) if param.ndim == 2 else ()
                    tensors[theirs + suffix] = TorchTensor(param, *transposed)
        return tensors

    def _weights(self, suffix: str, dtype: jnp.dtype | type) -> kernels.CellWeights:
        params = {name: getattr(self, name + suffix, None) for name in kernels.CellWeights._fields}
        return kernels.CellWeights(**{name: p[...].astype(dtype) for name, p in params.items() if p is not None})
