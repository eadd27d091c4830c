"""A task builds the model and its state, and defines the training step and the evaluation as pure functions.

Everything that changes is in the state, a pytree, so that a checkpoint of it is complete.
"""

from __future__ import annotations

import collections
import contextlib
import pathlib
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import kernels
import zoo
from experiments import own
from experiments.data import Dataset
from experiments.data.base import evaluation_batches
from experiments.errors import UserError
from experiments.recipes.recipe import Recipe
from experiments.training import stage_rates
from experiments.training.optimizers import make_optimizer, make_schedule
from kernels.runtime.sizes import cdiv
from zoo.weights.sources import is_torchvisions

Metrics = dict[str, jax.Array]
Batch = dict[str, jax.Array]


class TrainState(NamedTuple):
    """Everything that a training step changes."""

    step: jax.Array  # batches seen, int32
    params: nnx.State
    rest: nnx.State  # running statistics, random streams
    optimizer: Any
    ema: nnx.State | None  # averaged parameters, or None


class Task(Protocol):
    """What the loop needs of a task. It keeps nothing that changes: everything that does is in the state."""

    metric_names: tuple[str, ...]
    """What train_step reports, in the order of its vector; first the loss, then whether it and the gradient are finite. A
    norm is below 0 where a step computes none."""
    rates: Any
    """A factor on the learning rate for each parameter; None where all are 1."""
    directions: dict[str, int]
    """Figures on the test data that a run can be judged by: 1 where higher is better, -1 where lower is."""

    def learning_rate(self, step: int) -> float: ...
    def init(self) -> TrainState: ...
    def model(self, state: TrainState) -> nnx.Module: ...
    def start_from(self, weights: str, stepper: Any) -> str: ...
    def prepare(self, state: TrainState, batches: list[Batch]) -> list[Batch]: ...
    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, jax.Array]: ...
    def score_batch(self, state: TrainState, batch: Batch) -> Metrics: ...
    def evaluate(self, stepper: Any, place: Callable[[Any], Any]) -> dict[str, float]: ...
    def illustrate(self, state: TrainState, workdir: pathlib.Path, step: int) -> dict[str, pathlib.Path]: ...
    def conclude(self, workdir: pathlib.Path, figures: dict[str, float]) -> dict[str, Any]: ...


def use_implementation(recipe: Recipe) -> contextlib.AbstractContextManager[None]:
    """The recipe's kernels, for whatever is traced inside the block."""
    return kernels.use(None if recipe.implementation == "auto" else recipe.implementation)


MOST_PARAMETERS = 2**32
SAID_ELSEWHERE = {"name": "MODEL", "rngs": "--seed", "dtype": "--precision"}  # of the keywords of zoo.create_model


def build_model(recipe: Recipe, dataset: Dataset, **changes: Any) -> nnx.Module:
    """The recipe's model, made for the data (its classes, its channels); `changes` go before what the data says.

    It has the form that the recipe's weights ask for, and not their values.
    """
    options: dict[str, Any] = {"num_classes": len(dataset.classes), "dtype": jnp.dtype(recipe.precision)}
    if dataset.vocabulary:
        options["vocab_size"] = len(dataset.vocabulary)
    if len(dataset.input_shape) > 1:
        options["in_channels"] = dataset.input_shape[-1]
    known = options | changes
    for name, value in recipe.options("model").items():
        if name in SAID_ELSEWHERE:
            raise UserError(f"model_options: {name} given, {SAID_ELSEWHERE[name]} says that")
        if name in known and value != known[name]:
            raise UserError(f"model_options: {name}={value} given, {dataset.name} makes it {known[name]}; leave it out")
    rngs = nnx.Rngs(params=recipe.seed, default=recipe.seed + 1)
    create = own.create_model if own.is_own(recipe.model) else zoo.create_model
    try:
        model: Any = create(recipe.model, rngs=rngs, **(known | recipe.options("model")))
    except (TypeError, OverflowError, MemoryError) as error:
        raise UserError(f"model: {error}") from error
    if recipe.weights is not None and hasattr(model, "weights_loaded"):
        model.weights_loaded(is_torchvisions(recipe.weights), described=True)
    return model


def averaged(decay: float | None, average: Any, params: Any, step: jax.Array) -> Any:
    """The moving average of the parameters after a step, None if the recipe has none.

    It starts with the parameters themselves, so early in the run it forgets faster.
    """
    if not decay:
        return None
    kept = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda old, new: kept * old + (1 - kept) * new, average, params)


def structures(build: Callable[[], nnx.Module], freeze_until: str | None = None) -> tuple[Any, Any]:
    """The structures of the model in training, frozen stages in evaluation mode, and in evaluation; nothing is allocated.

    Raises:
      UserError: the model is far larger than what can be trained.
    """
    model = nnx.eval_shape(build)
    if (count := zoo.count_params(model)) > MOST_PARAMETERS:
        raise UserError(f"model_options: they make a model of {count:,} parameters, at most {MOST_PARAMETERS:,} are trained")
    training = stage_rates.frozen(zoo.training_view(model), freeze_until)
    return zoo.split(training)[0], zoo.split(zoo.evaluation_view(model))[0]


class SupervisedTask:
    """One network, one optimizer, one loss. A subclass gives `loss` and `score`."""

    metric_names: tuple[str, ...] = ("loss", "finite", "accuracy", "gradient_norm")
    better: ClassVar[dict[str, int]] = {"loss": -1, "accuracy": 1}

    def __init__(self, recipe: Recipe, dataset: Dataset, steps: int, per_epoch: int):
        self.recipe, self.dataset = recipe, dataset
        self.schedule = make_schedule(recipe, cdiv(steps, recipe.accumulate), per_epoch / recipe.accumulate)
        self.train_graph, self.test_graph = structures(self.build, recipe.freeze_until)
        self.rates = stage_rates.rates(nnx.eval_shape(self.build), recipe.freeze_until, recipe.layer_decay)
        self._rate = jax.jit(self.schedule)  # one operation where the schedule alone is seven or more
        self.optimizer = make_optimizer(recipe, self.schedule, self.rates)
        self.directions = {f"{part}{name}": way for part in self._parts() for name, way in self.better.items()}

    def _parts(self) -> dict[str, Any]:
        """The test data, by what stands before its figures."""
        return {"": self.dataset.test} | {f"{name}_": source for name, source in self.dataset.also_test.items()}

    def learning_rate(self, step: int) -> float:
        """The learning rate of the update that batch number `step` belongs to."""
        return float(self._rate(step // self.recipe.accumulate))

    def build(self) -> nnx.Module:
        """The module that is trained."""
        return build_model(self.recipe, self.dataset)

    def init(self) -> TrainState:
        """The state before the first step."""
        _, params, rest = zoo.split(stage_rates.frozen(zoo.training_view(self.build()), self.recipe.freeze_until))
        ema = jax.tree.map(jnp.copy, params) if self.recipe.ema else None
        return TrainState(jnp.int32(0), params, rest, self.optimizer.init(params), ema)

    def model(self, state: TrainState) -> nnx.Module:
        """The network in evaluation mode, with the averaged weights where there are such."""
        return nnx.merge(self.test_graph, state.ema if state.ema is not None else state.params, state.rest)

    def with_model(self, state: TrainState, model: nnx.Module) -> TrainState:
        """The state with the parameters and statistics of `model`, such as one that weights were loaded into.

        What they changed in the model itself, such as the range of its input, is evaluated too.
        """
        self.test_graph, params, rest = zoo.split(zoo.evaluation_view(model))
        return state._replace(params=params, rest=rest, ema=None if state.ema is None else params)

    def start_from(self, weights: str, stepper: Any) -> str:
        """Give the state that is stepped the values of trained weights; says what became of them.

        Raises:
          UserError: they are of another model, or cannot be read.
        """
        model = self.model(stepper.state)
        try:
            report = zoo.load_weights(model, weights)
        except ValueError as error:
            raise UserError(f"weights: {str(error).removeprefix('source: ')}") from error
        state = self.with_model(stepper.state, model)
        stepper.state = state._replace(ema=jax.tree.map(jnp.copy, state.ema))  # the step is given the memory of both
        drawn = f"; drawn anew: {', '.join(report.kept)}" if report.kept else ""
        fitted = f"; fitted to other channels: {', '.join(report.adapted)}" if report.adapted else ""
        return f"starting from {weights}{drawn}{fitted}"

    def prepare(self, state: TrainState, batches: list[dict[str, jax.Array]]) -> list[dict[str, jax.Array]]:
        """Work that is cheaper for several steps together than in each; called within the jitted call that takes them."""
        return batches

    def train_step(self, state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, jax.Array]:
        """One batch. Returns the new state and the vector of `metric_names`."""
        key = jax.random.fold_in(jax.random.key(self.recipe.seed), state.step)
        batch = self.dataset.preprocess(batch, key, True)

        def loss(params: nnx.State) -> tuple[jax.Array, tuple[nnx.State, Metrics]]:
            params = stage_rates.stopped(params, self.rates)
            model = nnx.merge(self.train_graph, params, state.rest, copy=True)  # variables of this trace
            value, metrics = self.loss(model, batch)
            return value, (zoo.split(model)[2], metrics)

        (value, (rest, metrics)), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, optimizer = self.optimizer.update(gradient, state.optimizer, state.params)
        params = stage_rates.kept(state.params, optax.apply_updates(state.params, updates), self.rates)
        ema = stage_rates.kept(state.params, averaged(self.recipe.ema, state.ema, params, state.step), self.rates)
        norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        metrics = {"loss": value, "finite": finite, "gradient_norm": norm} | metrics
        vector = jnp.stack([metrics[name].astype(jnp.float32) for name in self.metric_names])
        return TrainState(state.step + 1, params, rest, optimizer, ema), vector

    def score_batch(self, state: TrainState, batch: dict[str, jax.Array]) -> Metrics:
        """Sums over one test batch; "count" is what they are divided by in the end."""
        batch = self.dataset.preprocess(batch, jax.random.key(0), False)
        return self.score(self.model(state), batch)

    def evaluate(self, stepper: Any, place: Callable[[Any], Any] = lambda batch: batch) -> dict[str, float]:
        """Means over the test data; `place` puts a batch on the devices."""
        size = self.recipe.batch_size
        parts = {name: evaluation_batches(source, size) for name, source in self._parts().items()}
        parts[""] = self.dataset.evaluation_batches(size)
        found: dict[str, float] = {}
        for prefix, batches in parts.items():
            means = self.means(stepper.score(stepper.leaves, place(batch)) for batch in batches)
            found |= {prefix + name: value for name, value in means.items()}
        return found

    def means(self, sums: Any) -> dict[str, float]:
        """Means from the sums of all test batches."""
        total: collections.Counter[str] = collections.Counter()
        for batch in sums:
            total.update({name: float(value) for name, value in jax.device_get(batch).items()})
        count = total.pop("count")
        return {name: value / count for name, value in total.items()}

    def loss(self, model: nnx.Module, batch: dict[str, jax.Array]) -> tuple[jax.Array, Metrics]:
        raise NotImplementedError

    def score(self, model: nnx.Module, batch: dict[str, jax.Array]) -> Metrics:
        raise NotImplementedError

    def illustrate(self, state: TrainState, workdir: pathlib.Path, step: int) -> dict[str, pathlib.Path]:
        """Write pictures of what the network does now; called after each evaluation. Returns the PNG files by name."""
        return {}

    def conclude(self, workdir: pathlib.Path, figures: dict[str, float]) -> dict[str, Any]:
        """What the summary says besides the figures of the last evaluation."""
        return {}
