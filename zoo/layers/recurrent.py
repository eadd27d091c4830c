"""Stacks of recurrent layers, equal to torch's RNN, LSTM and GRU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

import kernels
from zoo.layers.initializers import fan_in_uniform

State = jax.Array | tuple[jax.Array, jax.Array]

_GATES = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 3}


class Direction(nnx.Module):
    """Weights of one layer in one direction; shapes and the order of the gates as in `kernels.CellWeights`."""

    def __init__(
        self,
        features: int,
        hidden_size: int,
        gates: int,
        proj_size: int,
        bias: bool,
        param_dtype: jnp.dtype | type,
        rngs: nnx.Rngs,
    ):
        init = fan_in_uniform(hidden_size)  # torch draws all of them so

        def param(*shape: int) -> nnx.Param:
            return nnx.Param(init(rngs.params(), shape, param_dtype))

        self.w_x = param(features, gates * hidden_size)
        self.w_h = param(proj_size or hidden_size, gates * hidden_size)
        self.b_x = param(gates * hidden_size) if bias else None
        self.b_h = param(gates * hidden_size) if bias else None
        self.w_p = param(hidden_size, proj_size) if proj_size else None

    def weights(self) -> kernels.CellWeights:
        names = kernels.CellWeights._fields
        return kernels.CellWeights(*(None if getattr(self, n) is None else getattr(self, n)[...] for n in names))


class Recurrent(nnx.Module):
    """A stack of recurrent layers over [batch, time, input_size].

    The same function as torch.nn.RNN, LSTM or GRU with batch_first=True, and with packed sequences where `seq_lengths` is
    given. The weights keep torch's two biases, so that they travel both ways without a change.

    Args:
      cell: "rnn_tanh", "rnn_relu", "lstm" or "gru".
      input_size: features per time step.
      hidden_size: units per layer and direction.
      num_layers: layers; each reads the outputs of the one before.
      bidirectional: whether each layer has a second direction, which reads from the last step to the first.
      dropout: probability with which each value between two layers is dropped in training mode, in [0, 1).
      proj_size: of an LSTM, the size to which outputs are projected (Sak et al. 2014); 0 for no projection.
      bias: whether to add biases.
      dtype: dtype of inputs, outputs and products; None for the promotion of input and weights. The state is kept in at
        least float32.
      param_dtype: dtype of the weights.
      implementation: see kernels.lstm.
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
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: {dropout} is outside [0, 1)")
        self.cell, self.input_size, self.hidden_size, self.num_layers = cell, input_size, hidden_size, num_layers
        self.bidirectional, self.proj_size, self.dropout = bidirectional, proj_size, dropout
        self.num_directions = 2 if bidirectional else 1
        self.output_size = self.num_directions * (proj_size or hidden_size)
        self.dtype, self.implementation, self.deterministic = dtype, implementation, deterministic
        self.directions = nnx.List(
            Direction(
                input_size if layer == 0 else self.output_size, hidden_size, _GATES[cell], proj_size, bias, param_dtype, rngs
            )
            for layer in range(num_layers)
            for _ in range(self.num_directions)
        )
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
        weights = [direction.weights() for direction in self.directions]
        (x,) = nnx.nn.dtypes.promote_dtype((x,), dtype=self.dtype or jnp.result_type(x, weights[0].w_x))
        layers = [weights[i : i + self.num_directions] for i in range(0, len(weights), self.num_directions)]
        drops = self.rngs is not None and not self.deterministic
        options = {
            "seq_lengths": seq_lengths,
            "dropout": self.dropout if drops else 0.0,
            "dropout_key": self.rngs() if drops else None,
            "implementation": self.implementation,
        }
        if self.cell == "lstm":
            return kernels.lstm(x, layers, initial_state, **options)
        if self.cell == "gru":
            return kernels.gru(x, layers, initial_state, **options)
        return kernels.rnn(x, layers, initial_state, activation=self.cell.removeprefix("rnn_"), **options)

    def step(self, x: jax.Array, state: State | None = None) -> tuple[jax.Array, State]:
        """One time step, for streaming: [batch, input_size] and the state so far (None at the start) to output and new state.

        Step after step gives the outputs that one call gives for the whole sequence.

        Raises:
          ValueError: the layers are bidirectional, and so need the future.
        """
        if self.bidirectional:
            raise ValueError("step: a bidirectional layer needs the whole sequence, and cannot be run step by step")
        if x.ndim != 2:
            raise ValueError(f"x: shape {x.shape} given, [batch, {self.input_size}] is needed")
        outputs, state = self(x[:, None], state)
        return outputs[:, 0], state

    def torch_names(self) -> Iterator[tuple[str, nnx.Param, bool]]:
        """For each weight its name in torch's module, the parameter, and whether torch keeps it transposed."""
        names = {"w_x": "weight_ih", "w_h": "weight_hh", "b_x": "bias_ih", "b_h": "bias_hh", "w_p": "weight_hr"}
        for number, direction in enumerate(self.directions):
            layer, backward = divmod(number, self.num_directions)
            suffix = f"_l{layer}" + ("_reverse" if backward else "")
            for ours, theirs in names.items():
                param = getattr(direction, ours)
                if param is not None:
                    yield theirs + suffix, param, param.ndim == 2
