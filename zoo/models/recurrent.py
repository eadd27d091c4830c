"""Recurrent networks: character language models, sequence classifiers, a tagger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from zoo.arguments import as_rngs, whole
from zoo.layers.dropout import drop
from zoo.layers.dropout import dropout as dropout_layer
from zoo.layers.embedding import Embedding
from zoo.layers.linear import Linear
from zoo.layers.recurrent import Recurrent, State
from zoo.registry import register

ELMAN = "Elman 1990, Finding structure in time"
LSTM = "Hochreiter, Schmidhuber 1997, Long short-term memory"
GRU = "Cho et al. 2014, Learning phrase representations using RNN encoder-decoder for statistical machine translation"
BIDIRECTIONAL = "Graves, Schmidhuber 2005, Framewise phoneme classification with bidirectional LSTM"

CHARACTERS = 98  # printable ASCII, newline, tab, unknown: the vocabulary of experiments/data/pysource.py


class _SequenceModel(nnx.Module):
    """Recurrent layers `recurrent` between an optional `embedding` of token ids and the output layer `head`.

    Without classes there is no `head`, and the output is what it would read.
    """

    embedding: Any
    classifier_layers = ("head",)

    def __init__(
        self,
        cell: str,
        features: int,
        *,
        num_classes: int,
        vocab_size: int | None = None,
        hidden_size: int,
        num_layers: int,
        bidirectional: bool,
        dropout: float,
        dtype: jnp.dtype | type | None,
        param_dtype: jnp.dtype | type,
        implementation: str | None,
        rngs: nnx.Rngs,
    ):
        policy: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype}
        self.embedding = None if vocab_size is None else Embedding(vocab_size, features, rngs=rngs, **policy)
        policy["implementation"] = implementation
        self.recurrent = Recurrent(cell, features, hidden_size, num_layers, bidirectional, dropout=dropout, rngs=rngs, **policy)
        self.dropout = dropout_layer(dropout, rngs=rngs)
        self._policy = (dtype, param_dtype, implementation)
        self.num_features = self.recurrent.output_size
        self.head: Linear | None
        self.reset_classifier(num_classes, rngs=rngs)

    def _logits(self, x: jax.Array) -> jax.Array:
        x = drop(self.dropout, x)
        return x if self.head is None else self.head(x)

    def torch_ignored(self) -> tuple[str, ...]:
        """Beginnings of names that weights may have and this model does not need."""
        return ("head.",) if self.head is None else ()

    def _check_tokens(self, tokens: jax.Array) -> None:
        if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise ValueError(f"x: {tokens.dtype} of shape {tokens.shape} given, integer token ids [batch, time] are needed")

    def reset_classifier(self, num_classes: int, *, rngs: nnx.Rngs | int | jax.Array = 0) -> None:
        """Replace the last layer by a new one with `num_classes` outputs; 0 takes it off."""
        number = whole("num_classes", num_classes, 0)
        dtype, param_dtype, implementation = self._policy
        policy: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "implementation": implementation}
        self.head = Linear(self.num_features, number, rngs=as_rngs(rngs), **policy) if number else None


class LanguageModel(_SequenceModel):
    """Logits of the next character at every step: embedding, recurrent layers, one linear layer.

    Input token ids [batch, time]; output logits [batch, time, num_classes]. With `initial_state`, or `step`, the state is
    carried over, so a text may be read in pieces.
    """

    def __call__(
        self, x: jax.Array, initial_state: State | None = None, *, return_state: bool = False
    ) -> jax.Array | tuple[jax.Array, State]:
        """Logits, and with `return_state` also the state after the last step, for the next call."""
        self._check_tokens(x)
        hidden, state = self.recurrent(self.embedding(x), initial_state)
        logits = self._logits(hidden)
        return (logits, state) if return_state else logits

    def step(self, token: jax.Array, state: State | None = None) -> tuple[jax.Array, State]:
        """One token id per sequence, [batch], to the logits of the next, [batch, num_classes], and the new state."""
        hidden, state = self.recurrent.step(self.embedding(token), state)
        return self._logits(hidden), state

    def features(self, x: jax.Array) -> dict[str, jax.Array]:
        """embedding and recurrent, both [batch, time, features]."""
        self._check_tokens(x)
        embedded = self.embedding(x)
        return {"embedding": embedded, "recurrent": self.recurrent(embedded)[0]}


class SequenceClassifier(_SequenceModel):
    """One class for a whole sequence [batch, time, in_channels], from the final state of the last layer.

    With two directions, this is the state after the last step concatenated with that after the first. Output logits
    [batch, num_classes]; with `seq_lengths` [batch], steps beyond a sequence's length are ignored.
    """

    def __call__(self, x: jax.Array, seq_lengths: jax.Array | Sequence[int] | None = None) -> jax.Array:
        return self._logits(self.features(x, seq_lengths)["summary"])

    def features(self, x: jax.Array, seq_lengths: jax.Array | Sequence[int] | None = None) -> dict[str, jax.Array]:
        """recurrent [batch, time, features] and summary [batch, features]."""
        outputs, final = self.recurrent(x, seq_lengths=seq_lengths)
        h = final[0] if isinstance(final, tuple) else final
        last = h[-self.recurrent.num_directions :].astype(outputs.dtype)
        return {"recurrent": outputs, "summary": jnp.concatenate(list(last), -1)}


class Tagger(_SequenceModel):
    """A label for every step: embedding, recurrent layers in both directions, one linear layer.

    Input token ids [batch, time]; output logits [batch, time, num_classes]. With `seq_lengths` [batch], the backward
    direction starts at each sequence's own end; logits beyond it mean nothing.
    """

    def __call__(self, x: jax.Array, seq_lengths: jax.Array | Sequence[int] | None = None) -> jax.Array:
        return self._logits(self.features(x, seq_lengths)["recurrent"])

    def features(self, x: jax.Array, seq_lengths: jax.Array | Sequence[int] | None = None) -> dict[str, jax.Array]:
        """embedding and recurrent, both [batch, time, features]."""
        self._check_tokens(x)
        embedded = self.embedding(x)
        return {"embedding": embedded, "recurrent": self.recurrent(embedded, seq_lengths=seq_lengths)[0]}


def _language_model(
    cell: str,
    *,
    num_classes: int = CHARACTERS,
    embedding_size: int = 64,
    hidden_size: int = 256,
    num_layers: int = 1,
    dropout: float = 0.0,
    **policy,
) -> LanguageModel:
    return LanguageModel(
        cell,
        embedding_size,
        num_classes=whole("num_classes", num_classes),
        vocab_size=num_classes,
        hidden_size=hidden_size,
        num_layers=num_layers,
        bidirectional=False,
        dropout=dropout,
        **policy,
    )


@register("rnn_lm", paper=ELMAN, params=113_890, macs=13_697_024, input_shape=(128,), num_classes=CHARACTERS)
def rnn_lm(**options) -> LanguageModel:
    """Character language model with one RNN layer (tanh)."""
    return _language_model("rnn_tanh", **options)


@register("lstm_lm", paper=LSTM, params=361_186, macs=45_154_304, input_shape=(128,), num_classes=CHARACTERS)
def lstm_lm(**options) -> LanguageModel:
    """Character language model with one LSTM layer."""
    return _language_model("lstm", **options)


@register("gru_lm", paper=GRU, params=278_754, macs=34_668_544, input_shape=(128,), num_classes=CHARACTERS)
def gru_lm(**options) -> LanguageModel:
    """Character language model with one GRU layer."""
    return _language_model("gru", **options)


def _classifier(
    cell: str,
    bidirectional: bool,
    *,
    num_classes: int = 10,
    in_channels: int = 32,
    hidden_size: int = 128,
    num_layers: int = 1,
    dropout: float = 0.0,
    **policy,
) -> SequenceClassifier:
    return SequenceClassifier(
        cell,
        in_channels,
        num_classes=num_classes,
        hidden_size=hidden_size,
        num_layers=num_layers,
        bidirectional=bidirectional,
        dropout=dropout,
        **policy,
    )


@register("rnn_classifier", paper=ELMAN, params=22_026, macs=656_640, input_shape=(32, 32), num_classes=10)
def rnn_classifier(**options) -> SequenceClassifier:
    """Sequence classifier with one RNN layer (tanh)."""
    return _classifier("rnn_tanh", False, **options)


@register("lstm_classifier", paper=LSTM, params=84_234, macs=2_622_720, input_shape=(32, 32), num_classes=10)
def lstm_classifier(**options) -> SequenceClassifier:
    """Sequence classifier with one LSTM layer."""
    return _classifier("lstm", False, **options)


@register("bilstm_classifier", paper=BIDIRECTIONAL, params=168_458, macs=5_245_440, input_shape=(32, 32), num_classes=10)
def bilstm_classifier(**options) -> SequenceClassifier:
    """Sequence classifier with one bidirectional LSTM layer."""
    return _classifier("lstm", True, **options)


@register("bilstm_tagger", paper=BIDIRECTIONAL, params=207_498, macs=25_493_504, input_shape=(128,), num_classes=10)
def bilstm_tagger(
    *,
    num_classes: int = 10,
    vocab_size: int = CHARACTERS,
    embedding_size: int = 64,
    hidden_size: int = 128,
    num_layers: int = 1,
    bidirectional: bool = True,
    dropout: float = 0.0,
    **policy,
) -> Tagger:
    """Character tagger with one bidirectional LSTM layer; `bidirectional=False` reads forward only."""
    return Tagger(
        "lstm",
        embedding_size,
        num_classes=num_classes,
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        bidirectional=bidirectional,
        dropout=dropout,
        **policy,
    )
