"""GANs: the losses, one jitted step for both networks, and the quality of the samples."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import zoo
from experiments.data import Dataset
from experiments.errors import UserError, check_kind
from experiments.recipes.recipe import Recipe
from experiments.training import samples
from experiments.training.mesh import to_host
from experiments.training.optimizers import make_optimizer, make_schedule
from experiments.training.quality import Judge, measure
from experiments.training.task import Batch, Metrics, TrainState, averaged, build_model, structures
from kernels.runtime.sizes import cdiv
from zoo.layers.norm import BatchNormAct
from zoo.layers.spectral_norm import SpectralNorm

softplus = jax.nn.softplus
# name -> (discriminator's loss of its scores of real and generated images, generator's loss of the latter)
LOSSES: dict[str, tuple[Callable, Callable]] = {
    # Goodfellow et al. 2014: binary cross-entropy on logits, the generator's in its non-saturating form.
    "non_saturating": (lambda real, fake: softplus(-real).mean() + softplus(fake).mean(), lambda fake: softplus(-fake).mean()),
    # Mao et al. 2017, with targets 0 and 1.
    "least_squares": (
        lambda real, fake: 0.5 * (jnp.square(real - 1).mean() + jnp.square(fake).mean()),
        lambda fake: 0.5 * jnp.square(fake - 1).mean(),
    ),
    # Lim and Ye 2017, Miyato et al. 2018.
    "hinge": (lambda real, fake: jax.nn.relu(1 - real).mean() + jax.nn.relu(1 + fake).mean(), lambda fake: -fake.mean()),
    # Gulrajani et al. 2017; the penalty is added in the step.
    "wasserstein_gp": (lambda real, fake: fake.mean() - real.mean(), lambda fake: -fake.mean()),
}
OPTIONS = {
    "loss": "str", "d_steps": "int", "fresh_latents": "bool", "penalty": "float", "r1": "float", "conditional": "bool",
    "judge": "str | None",
}  # fmt: skip
BETTER = {"frechet_distance": -1, "precision": 1, "recall": 1, "label_distance": -1, "missing_classes": -1}
# Samples in the pictures, and generated images of which more than this share of classes is missing is a collapsed run.
ROWS, DRAWN, MOST_COLUMNS, COLLAPSED = 10, 400, 20, 0.3  # of a grid; DRAWN samples for a judge to choose from


def total(tree: Any) -> jax.Array:
    """The sum of all elements, finite only if they all are. On a CPU a product with ones takes less time than a sum."""
    flat = [leaf.reshape(-1, leaf.shape[-1]) for leaf in jax.tree.leaves(tree)]
    return sum((jnp.sum(jnp.ones(len(leaf), leaf.dtype) @ leaf) for leaf in flat), jnp.float32(0))


def norm(tree: Any) -> jax.Array:
    """The L2 norm of all elements. Behind the barrier, it cannot be fused with the update, which would be rounded otherwise."""
    return optax.tree.norm(jax.lax.optimization_barrier(tree))


def joined(generator: nnx.State, discriminator: nnx.State) -> nnx.State:
    """The parameters of both networks as those of the whole model."""
    return nnx.State({"generator": generator.raw_mapping, "discriminator": discriminator.raw_mapping})


class GanTask:
    """A zoo model with `generator` and `discriminator`, trained in turn.

    Task options:
      loss: a key of LOSSES.
      d_steps: discriminator steps for each one of the generator.
      fresh_latents: draw other latent vectors for the generator's step than for the discriminator's, as algorithm 1 of
        Goodfellow et al. 2014 does. Without, the same images serve both, which saves the generator's second pass.
      penalty: weight of the gradient penalty.
      r1: weight of half the squared gradient at real images, Mescheder et al. 2018.
      conditional: give both networks the labels.
      judge: workdir of a trained lenet5 to measure with.
    """

    metric_names: tuple[str, ...] = (
        "loss", "finite", "generator_loss", "discriminator_loss", "score_of_real", "score_of_fake", "generator_gradient_norm",
        "discriminator_gradient_norm",
    )  # fmt: skip

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset,
        steps: int,
        per_epoch: int,
        judge: Callable[[Recipe, Dataset], Judge] | None = None,
    ):
        options: dict[str, Any] = {"loss": "non_saturating", "d_steps": 1, "penalty": 10.0, "r1": 0.0}
        options |= {"conditional": False, "judge": None, "fresh_latents": False}
        unknown = set(recipe.options("task")) - set(options)
        if unknown:
            raise UserError(f"task_options: {', '.join(sorted(unknown))} not known; known: {', '.join(options)}")
        options |= recipe.options("task")
        for name, kind in OPTIONS.items():
            check_kind(f"task_options: {name}", options[name], kind)
        if options["loss"] not in LOSSES:
            raise UserError(f"loss: {options['loss']!r} given, it is one of {', '.join(LOSSES)}")
        for name, least, most in (("d_steps", 1, 10**6), ("penalty", 0, 1e9), ("r1", 0, 1e9)):
            if not least <= options[name] <= most:
                raise UserError(f"{name}: {options[name]!r} given, {least} to {most:g} is needed")
        self.recipe, self.dataset, self.steps, self.rates = recipe, dataset, steps, None
        self.directions = dict(BETTER)
        self.loss_name, self.d_steps = options["loss"], options["d_steps"]
        self.penalty, self.r1 = float(options["penalty"]), float(options["r1"])
        self.conditional, self.fresh_latents = options["conditional"], options["fresh_latents"]
        self.schedule = make_schedule(recipe, cdiv(steps, recipe.accumulate), per_epoch / recipe.accumulate)
        self._rate = jax.jit(self.schedule)
        self.optimizer = make_optimizer(recipe, self.schedule)
        self._check_images()
        model = nnx.eval_shape(self.build)
        self.latent_size = model.latent_size
        # What keeps statistics of its batches sees real and generated images apart, as in Radford et al. 2015.
        stateful = (BatchNormAct, SpectralNorm)
        self.scores_together = not any(isinstance(module, stateful) for _, module in nnx.iter_modules(model.discriminator))
        self.train_graph, self.test_graph = structures(self.build)
        self._generate = jax.jit(
            lambda state, z, labels: self.model(state).generator(z, labels), compiler_options=zoo.compiler_options()
        )
        self._judge = functools.cache(lambda: judge(recipe, dataset) if judge is not None else None)

    def _check_images(self) -> None:
        batch = self.dataset.train.gather(np.arange(min(256, len(self.dataset.train))), None)
        images = np.asarray(self.dataset.preprocess(batch, jax.random.key(0), False)["image"])
        if images.min() < -1 - 1e-6 or images.max() > 1 + 1e-6:
            raise UserError(
                f"data: images of {self.dataset.name} reach from {images.min():.3g} to {images.max():.3g}; "
                "a generator that ends in tanh needs -1 to 1"
            )

    def learning_rate(self, step: int) -> float:
        """The learning rate of both networks at a batch."""
        return float(self._rate(step // self.recipe.accumulate))

    def build(self) -> zoo.Gan:
        """Both networks, built for the data."""
        classes = len(self.dataset.classes) if self.conditional else None
        model = build_model(self.recipe, self.dataset, num_classes=classes)
        if not isinstance(model, zoo.Gan):
            raise UserError(f"model: {self.recipe.model} is no GAN; the GANs are gan_mlp and dcgan")
        normalized = any(isinstance(module, BatchNormAct) for _, module in nnx.iter_modules(model.discriminator))
        if self.loss_name == "wasserstein_gp" and normalized:
            raise UserError("loss: wasserstein_gp needs a discriminator without batch norm (discriminator_norm=None)")
        shape = jax.eval_shape(
            zoo.evaluation_view(model), jnp.zeros((1, model.latent_size)), jnp.zeros(1, int) if classes else None
        ).shape[1:]
        if shape != self.dataset.input_shape:
            raise UserError(
                f"data: {self.dataset.name} has images {self.dataset.input_shape}, {self.recipe.model} makes {shape}"
            )
        return model

    def init(self) -> TrainState:
        """The state before the first step; its optimizer is a pair, generator's and discriminator's."""
        _, params, rest = zoo.split(zoo.training_view(self.build()))
        optimizer = tuple(self.optimizer.init(params[part]) for part in ("generator", "discriminator"))
        ema = jax.tree.map(jnp.copy, params) if self.recipe.ema else None
        return TrainState(jnp.int32(0), params, rest, optimizer, ema)

    def model(self, state: TrainState) -> zoo.Gan:
        """Both networks in evaluation mode; the generator's weights are the averaged ones where there are such."""
        return nnx.merge(self.test_graph, state.params if state.ema is None else state.ema, state.rest)

    def start_from(self, weights: str, stepper: Any) -> str:
        raise UserError(f"weights: {weights} given, a GAN takes none")

    def with_model(self, state: TrainState, model: zoo.Gan) -> TrainState:
        """The state with the parameters and statistics of `model`, such as one that weights were loaded into."""
        _, params, rest = zoo.split(model)
        return state._replace(params=params, rest=rest, ema=None if state.ema is None else params)

    def prepare(self, state: TrainState, batches: list[Batch]) -> list[Batch]:
        """The batches of the next steps, each with its random keys and latent vectors: drawn for all of them at once, which
        takes a CPU a fraction of the time, and the same as if each step drew its own."""
        steps = state.step + jnp.arange(len(batches))
        key = jax.random.key(self.recipe.seed)
        keys = jax.vmap(lambda step: jax.random.split(jax.random.fold_in(key, step), 3))(steps)
        shape = (len(batches[0]["image"]), self.latent_size)
        draw = jax.vmap(lambda key: jax.random.normal(key, shape))
        z = draw(keys[:, 1])
        prepared = [batch | {"keys": keys[i], "latent": z[i]} for i, batch in enumerate(batches)]
        if not self.fresh_latents:
            return prepared
        fresh = draw(jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys[:, 1]))
        return [batch | {"fresh_latent": fresh[i]} for i, batch in enumerate(prepared)]

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, jax.Array]:
        """One discriminator step and, after every `d_steps` of them, one generator step, on a batch that `prepare` made.
        Returns state and metrics."""
        keys, z = batch["keys"], batch["latent"]
        batch = self.dataset.preprocess(batch, keys[0], True)
        real, labels = batch["image"], batch["label"] if self.conditional else None
        discriminator_loss, generator_loss = LOSSES[self.loss_name]
        params, (optimizer_g, optimizer_d) = state.params, state.optimizer

        def generate(params_g: nnx.State, z: jax.Array, rest: nnx.State) -> tuple[jax.Array, nnx.State]:
            model = self._merge(params_g, params["discriminator"], rest)
            return model.generator(z, labels), zoo.split(model)[2]

        # The generator's images serve the discriminator's step; without fresh ones, their gradient serves the generator's own.
        fake, pull_back, rest = jax.vjp(lambda p: generate(p, z, state.rest), params["generator"], has_aux=True)

        def loss_d(params_d: nnx.State) -> tuple[jax.Array, tuple]:
            model = self._merge(params["generator"], params_d, rest)
            if self.scores_together:  # one product twice as large takes less time than two
                twice = None if labels is None else jnp.concatenate([labels, labels])
                real_score, fake_score = jnp.split(model.discriminator(jnp.concatenate([real, fake]), twice), 2)
            else:
                real_score, fake_score = model.discriminator(real, labels), model.discriminator(fake, labels)
            value = discriminator_loss(real_score, fake_score)

            def score(images: jax.Array) -> jax.Array:  # statistics that this inner derivative updates are thrown away
                return self._merge(params["generator"], params_d, rest).discriminator(images, labels).sum()

            if self.loss_name == "wasserstein_gp":
                mix = jax.random.uniform(keys[2], (len(real), *[1] * (real.ndim - 1)), real.dtype)
                between = mix * real + (1 - mix) * fake
                slope = jax.grad(score)(between)
                norms = jnp.sqrt(jnp.square(slope).sum(axis=tuple(range(1, slope.ndim))) + 1e-12)
                value += self.penalty * jnp.square(norms - 1).mean()
            if self.r1:
                slope = jax.grad(score)(real)
                value += self.r1 / 2 * jnp.square(slope).sum() / len(real)
            return value, (zoo.split(model)[2], real_score.mean(), fake_score.mean())

        (value_d, (rest, real_score, fake_score)), gradient_d = jax.value_and_grad(loss_d, has_aux=True)(
            params["discriminator"]
        )
        updates, optimizer_d = self.optimizer.update(gradient_d, optimizer_d, params["discriminator"])
        params_d = optax.apply_updates(params["discriminator"], updates)

        def loss_g(images: jax.Array, rest: nnx.State) -> tuple[jax.Array, nnx.State]:
            model = self._merge(params["generator"], params_d, rest)
            return generator_loss(model.discriminator(images, labels)), zoo.split(model)[2]

        Generated = tuple[nnx.State, Any, nnx.State, jax.Array, jax.Array, jax.Array]

        def step_g(params_g: nnx.State, optimizer_g: Any, rest: nnx.State) -> Generated:
            images, pull_images = fake, pull_back
            if self.fresh_latents:
                generated = lambda p: generate(p, batch["fresh_latent"], rest)
                images, pull_images, rest = jax.vjp(generated, params_g, has_aux=True)
            (value, rest), pull = jax.value_and_grad(loss_g, has_aux=True)(images, rest)
            (gradient,) = pull_images(pull)
            updates, optimizer_g = self.optimizer.update(gradient, optimizer_g, params_g)
            return (
                optax.apply_updates(params_g, updates),
                optimizer_g,
                rest,
                *map(jnp.float32, (value, total(gradient), norm(gradient))),
            )

        def wait_g(params_g: nnx.State, optimizer_g: Any, rest: nnx.State) -> Generated:
            return params_g, optimizer_g, rest, *map(jnp.float32, (loss_g(fake, rest)[0], 0, -1))

        before = params["generator"], optimizer_g, rest
        if self.d_steps == 1:
            params_g, optimizer_g, rest, value_g, sum_g, norm_g = step_g(*before)
        else:
            due = state.step % self.d_steps == self.d_steps - 1
            params_g, optimizer_g, rest, value_g, sum_g, norm_g = jax.lax.cond(due, step_g, wait_g, *before)
        params = joined(params_g, params_d)
        ema = averaged(self.recipe.ema, state.ema, params, state.step)
        finite = jnp.isfinite(value_d) & jnp.isfinite(value_g) & jnp.isfinite(total(gradient_d) + sum_g)
        figures = (value_d + value_g, finite, value_g, value_d, real_score, fake_score, norm_g, norm(gradient_d))
        vector = jnp.stack([jnp.asarray(figure, jnp.float32) for figure in figures])
        return TrainState(state.step + 1, params, rest, (optimizer_g, optimizer_d), ema), vector

    def _merge(self, params_g: nnx.State, params_d: nnx.State, rest: nnx.State) -> zoo.Gan:
        return nnx.merge(self.train_graph, joined(params_g, params_d), rest, copy=True)

    def score_batch(self, state: TrainState, batch: Batch) -> Metrics:
        raise NotImplementedError("a GAN is measured by its samples")

    # -- evaluation ---------------------------------------------------------------------------------------------------

    def latents(self, count: int, seed: int) -> tuple[jax.Array, jax.Array | None]:
        """Fixed latent vectors [count, latent_size], and labels that go through all classes where the model takes them."""
        z = jax.random.normal(jax.random.key(seed), (count, self.latent_size))
        return z, jnp.arange(count) % len(self.dataset.classes) if self.conditional else None

    def generate(self, state: TrainState, z: jax.Array, labels: jax.Array | None) -> np.ndarray:
        """Images for latent vectors, in evaluation mode, by batches."""
        # Values of the host are the same on every device of every process.
        whole = jax.tree.map(np.asarray, (z, labels))
        parts = [jax.tree.map(lambda a, s=start: a[s : s + 256], whole) for start in range(0, len(z), 256)]
        return np.concatenate([to_host(self._generate(state, *part)) for part in parts])

    def evaluate(self, stepper: Any, place: Any = None) -> dict[str, float]:
        """Fréchet distance, precision, recall and label histogram of samples, beside the same of one half of the data."""
        judge = self._judge()
        if judge is None:
            raise UserError("judge: this GAN was given none to measure its samples with")
        z, labels = self.latents(judge.half, seed=1)
        return measure(judge, self.generate(stepper.state, z, labels))

    def illustrate(self, state: TrainState, workdir: pathlib.Path, step: int) -> dict[str, pathlib.Path]:
        """samples/STEP.png, a grid from latent vectors that stay the same; samples.gif is made of them at the end.

        A column for each class: the label that a conditional model was given, else what the judge takes a sample for, in the
        order drawn; cells stay empty where it takes fewer than ROWS of DRAWN samples for a class.
        """
        classes, judge = len(self.dataset.classes), None if self.conditional else self._judge()
        columns = classes if 1 < classes <= MOST_COLUMNS and (self.conditional or judge is not None) else ROWS
        images = self.generate(state, *self.latents(DRAWN if judge is not None else ROWS * columns, seed=2))
        if judge is not None and columns == classes:
            images = samples.in_columns(images, judge.forward(images)[1].argmax(1), columns, ROWS)
        path = workdir / "samples" / f"{step:07d}.png"
        if jax.process_index() == 0:
            samples.save_grid(images[: ROWS * columns], path, columns)
        return {"samples": path}

    def conclude(self, workdir: pathlib.Path, figures: dict[str, float]) -> dict[str, Any]:
        """What the summary says besides the figures: whether the samples collapsed onto few classes."""
        if jax.process_index() == 0:
            samples.save_strip(workdir / "samples", workdir / "samples.gif", workdir / "samples.png")
        missing = figures.get("missing_classes", 0.0)
        collapsed = missing > COLLAPSED * len(self.dataset.classes) or figures.get("recall", 1.0) < 0.02
        return {"collapsed": bool(collapsed)}
