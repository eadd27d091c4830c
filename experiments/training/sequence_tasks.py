"""Tasks on sequences of tokens: language models with a carried state, and taggers."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

import kernels
import zoo
from experiments.errors import UserError
from experiments.recipes.recipe import Recipe
from experiments.training.task import Metrics, SupervisedTask, TrainState, build_model


class Carried(nnx.Variable):
    """Recurrent state from the end of the batch before."""


class Carrying(nnx.Module):
    """A language model and the state in which the last batch left it, one row per stream."""

    def __init__(self, model: zoo.LanguageModel, batch_size: int):
        self.model = model
        self.carried = nnx.List(Carried(leaf) for leaf in jax.tree.leaves(model.recurrent.zero_state(batch_size)))

    def __call__(self, tokens: jax.Array, fresh: jax.Array) -> jax.Array:
        """Logits; the state goes on from the last call, except in rows that are `fresh`, [batch]."""
        start = [jnp.where(fresh[None, :, None], 0, state[...]) for state in self.carried]
        carried: Any = tuple(start) if len(start) > 1 else start[0]
        logits, end = self.model(tokens, carried, return_state=True)
        for state, value in zip(self.carried, jax.tree.leaves(end), strict=True):
            state[...] = value
        return logits


class LanguageModelTask(SupervisedTask):
    """The next token at every step, by truncated back-propagation through time.

    Gradients reach back to the beginning of a batch's piece of text; the state itself is carried on from piece to piece.
    """

    metric_names = ("loss", "finite", "accuracy", "bits_per_character", "gradient_norm")
    better: ClassVar[dict[str, int]] = {"loss": -1, "accuracy": 1, "bits_per_character": -1}

    def build(self) -> nnx.Module:
        _check_model(self.recipe, "*_lm", "language model")
        return Carrying(build_model(self.recipe, self.dataset), self.recipe.batch_size)  # type: ignore[arg-type]

    def model(self, state: TrainState) -> zoo.LanguageModel:
        return super().model(state).model  # type: ignore[attr-defined]

    def with_model(self, state: TrainState, model: nnx.Module) -> TrainState:
        whole = super().model(state)
        whole.model = model  # type: ignore[attr-defined]
        return super().with_model(state, whole)

    def loss(self, model: nnx.Module, batch: dict[str, jax.Array]) -> tuple[jax.Array, Metrics]:
        inputs, targets = batch["tokens"][:, :-1], batch["tokens"][:, 1:]
        logits = model(inputs, batch["fresh"])  # type: ignore[operator]
        value = kernels.softmax_cross_entropy(logits, targets, label_smoothing=self.recipe.label_smoothing).mean()
        return value, {"accuracy": (logits.argmax(-1) == targets).mean(), "bits_per_character": value / math.log(2)}

    def score(self, model: nnx.Module, batch: dict[str, jax.Array]) -> Metrics:
        """Each window on its own, from a zero state."""
        inputs, targets = batch["tokens"][:, :-1], batch["tokens"][:, 1:]
        sums = _token_sums(model(inputs), targets, batch["mask"] * batch["weight"][:, None])  # type: ignore[operator]
        return sums | {"bits_per_character": sums["loss"] / math.log(2)}


class TaggingTask(SupervisedTask):
    """A tag for every token; tokens whose "mask" is 0 are seen and not counted."""

    def build(self) -> nnx.Module:
        _check_model(self.recipe, "*_tagger", "tagger")
        return build_model(self.recipe, self.dataset)

    def loss(self, model: nnx.Module, batch: dict[str, jax.Array]) -> tuple[jax.Array, Metrics]:
        logits, tags, mask = model(batch["tokens"], batch.get("lengths")), batch["tags"], batch["mask"]  # type: ignore[operator]
        loss = kernels.softmax_cross_entropy(logits, tags, label_smoothing=self.recipe.label_smoothing)
        count = mask.sum()
        return (loss * mask).sum() / count, {"accuracy": ((logits.argmax(-1) == tags) * mask).sum() / count}

    def score(self, model: nnx.Module, batch: dict[str, jax.Array]) -> Metrics:
        logits = model(batch["tokens"], batch.get("lengths"))  # type: ignore[operator]
        return _token_sums(logits, batch["tags"], batch["mask"] * batch["weight"][:, None])


def _token_sums(logits: jax.Array, targets: jax.Array, weight: jax.Array) -> dict[str, Any]:
    loss = kernels.softmax_cross_entropy(logits, targets)
    right = logits.argmax(-1) == targets
    return {"loss": (loss * weight).sum(), "accuracy": (right * weight).sum(), "count": weight.sum()}


def _check_model(recipe: Recipe, pattern: str, kind: str) -> None:
    fitting = zoo.list_models(pattern)
    if recipe.model not in fitting:
        raise UserError(f"model: {recipe.model} is no {kind}; known: {', '.join(fitting)}")
