"""The training loop, from top to bottom: data, steps, figures, evaluation, checkpoints, interruptions, the end."""

from __future__ import annotations

import contextlib
import importlib.metadata
import itertools
import math
import pathlib
import platform
import signal
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from rich.console import Console

from experiments import data
from experiments.data.base import reader
from experiments.errors import UserError, explain
from experiments.measuring.result import write_json
from experiments.training import mesh as meshes
from experiments.training import run_files
from experiments.training.checkpoints import Checkpoints, digest, named_leaves
from experiments.training.progress import ProgressBar, print_summary
from experiments.training.recipe import Recipe
from experiments.training.tasks import make_task, use_implementation


class StoppedError(Exception):
    """SIGTERM or Ctrl-C arrived, and the run was saved."""

    def __init__(self, signal_number: int, step: int):
        name = signal.Signals(signal_number).name
        super().__init__(f"stopped by {name} at step {step}, saved; the same command continues")
        self.signal_number = signal_number


class Stepper:
    """The state as one flat list of arrays, stepped in place by a jitted function that is given their memory.

    Splitting a model into its arrays once, and not in every step, brings Python's share of a step of LeNet-5 from
    milliseconds to tens of microseconds.
    """

    def __init__(self, task: Any, recipe: Recipe, mesh: jax.sharding.Mesh):
        leaves, self._structure = jax.tree.flatten(task.init())
        self.shardings = meshes.state_shardings(mesh, leaves)
        self.batch_sharding = meshes.batch_sharding(mesh)
        self.leaves = meshes.place(leaves, self.shardings)
        self._implementation = lambda: use_implementation(recipe)
        replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

        def step(leaves: list[jax.Array], batches: list[dict[str, jax.Array]]) -> tuple[list[jax.Array], list[jax.Array]]:
            state, metrics = jax.tree.unflatten(self._structure, leaves), []
            with self._implementation():
                for batch in task.prepare(state, batches):
                    state, figures = task.train_step(state, batch)
                    metrics.append(figures)
            return jax.tree.leaves(state), metrics

        def score(leaves: list[jax.Array], batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
            with self._implementation():
                return task.score_batch(jax.tree.unflatten(self._structure, leaves), batch)

        self._step = jax.jit(step, donate_argnums=0, out_shardings=(self.shardings, replicated))
        self.score = jax.jit(score, out_shardings=replicated)

    @property
    def state(self) -> Any:
        return jax.tree.unflatten(self._structure, self.leaves)

    @state.setter
    def state(self, state: Any) -> None:
        self.leaves = jax.tree.leaves(state)

    def step(self, batches: list[dict[str, jax.Array]]) -> list[jax.Array]:
        """A training step for each batch, in one call; returns the task's metrics of each, not yet computed perhaps."""
        self.leaves, metrics = self._step(self.leaves, batches)
        return metrics


class Interrupts:
    """SIGTERM and SIGINT noted, not acted on, so that the loop can finish its step and save; a second one acts at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._old[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, _frame: Any) -> None:
        self.received = number
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)


def ahead(batches: Iterator[Any], place: Any) -> Iterator[Any]:
    """Batches on the device, the next one on its way while this one is used."""
    waiting = None
    for batch in batches:
        if waiting is not None:
            yield waiting
        waiting = place(batch)
    if waiting is not None:
        yield waiting


def grouped(batches: Iterator[Any], sizes: Iterator[int]) -> Iterator[list[Any]]:
    """The batches in lists of the given sizes."""
    for size in sizes:
        yield list(itertools.islice(batches, size))


def versions() -> dict[str, str]:
    """What the figures of a run depend on."""
    packages = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")}
    return packages | {"python": platform.python_version(), "device": jax.devices()[0].device_kind}


def train(recipe: Recipe, console: Console | None = None) -> dict[str, Any]:
    """Run a recipe from start, or from where it stopped, to its end.

    Returns:
      What summary.json holds.

    Raises:
      UserError: something the user can change; nothing that was saved before is lost.
      StoppedError: a signal arrived and the run was saved.
    """
    first = jax.process_index() == 0
    console = console or Console(quiet=not first)
    workdir = pathlib.Path(recipe.directory)
    if not recipe.resume and first:
        run_files.clear(workdir)
    resumed = run_files.check_same_run(workdir, recipe.settings())
    if resumed and (workdir / "summary.json").exists():
        summary = run_files.read_json(workdir / "summary.json")
        print_summary(console, summary, "Finished before; --no-resume trains anew")
        return summary

    dataset = data.load(recipe.data, **recipe.options("data"))
    if recipe.batch_size > len(dataset.train):
        raise UserError(f"batch_size: {recipe.batch_size} given, {dataset.name} has {len(dataset.train)} training examples")
    mesh = meshes.make_mesh(recipe.mesh)
    if recipe.batch_size % mesh.shape["data"]:
        raise UserError(f"batch_size: {recipe.batch_size} given, a multiple of the {mesh.shape['data']} data devices is needed")
    batches = dataset.training_batches(recipe.batch_size, recipe.seed)
    steps = recipe.steps or max(1, round(recipe.epochs * batches.per_epoch))
    task = make_task(recipe, dataset, steps, batches.per_epoch)
    stepper = Stepper(task, recipe, mesh)

    if first:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            if not resumed:
                run_files.clear(workdir)
                write_json(workdir / "config.json", {"recipe": recipe.settings(), "versions": versions()})
        except OSError as error:
            raise UserError(f"workdir: {explain(error)}") from error
    checkpoints = Checkpoints(workdir / run_files.CHECKPOINTS)
    feed = reader(batches, steps, part=(jax.process_index(), jax.process_count()))
    start, seconds_before, evaluation = 0, 0.0, {}
    found = checkpoints.restore(stepper.state, stepper.shardings, discard=True) if resumed else None
    if found:
        stepper.state, extra, damaged = found
        start, seconds_before, evaluation = extra["step"], extra["seconds"], extra["evaluation"]
        feed.set_state(extra["feed"])
        for line in damaged:
            console.print(f"warning: {line}", highlight=False, soft_wrap=True)
        console.print(f"continuing at step {start} of {steps}", highlight=False)
    per_epoch = batches.per_epoch
    run = _Run(recipe, task, stepper, checkpoints, feed, steps, per_epoch, start, seconds_before, workdir, dataset, evaluation)
    return run.to_the_end(console)


class _Run:
    """One pass through the loop; its parts are methods so that each can be read alone."""

    def __init__(
        self,
        recipe: Recipe,
        task: Any,
        stepper: Stepper,
        checkpoints: Checkpoints,
        feed: Any,
        steps: int,
        per_epoch: int,
        start: int,
        seconds_before: float,
        workdir: pathlib.Path,
        dataset: data.Dataset,
        evaluation: dict[str, float],
    ):
        self.recipe, self.task, self.stepper, self.checkpoints, self.feed = recipe, task, stepper, checkpoints, feed
        self.steps, self.per_epoch, self.start, self.workdir, self.dataset = steps, per_epoch, start, workdir, dataset
        self.seconds_before, self.begun = seconds_before, time.monotonic()
        self.first = jax.process_index() == 0
        # Figures are averaged over a two-hundredth of the run, so that curves have as many points whatever its length.
        self.log_every = max(recipe.steps_per_call, steps // 200)
        self.evaluate_every = max(1, round(recipe.evaluate_every * per_epoch))
        self.checkpoint_every = max(1, round(recipe.checkpoint_every * per_epoch))
        self.pending: list[jax.Array] = []  # metrics of steps not yet looked at
        self.window: list[np.ndarray] = []  # metrics of steps looked at, not yet logged
        self.seen = start  # steps whose metrics were looked at
        self.losses: list[float] = []  # since the last checkpoint
        self.evaluation: dict[str, float] = evaluation

    def to_the_end(self, console: Console) -> dict[str, Any]:
        place = lambda batch: meshes.place_batch(batch, self.stepper.batch_sharding, whole=False)
        # The iterator is ahead of the loop by one batch; a checkpoint needs its position for the step it is of.
        positions: list[dict[str, Any]] = [self.feed.get_state()]

        def fed() -> Iterator[dict[str, np.ndarray]]:
            for batch in itertools.islice(self.feed, self.steps - self.start):
                positions.append(self.feed.get_state())
                yield batch

        step = self.start
        with contextlib.ExitStack() as stack:
            self.records = stack.enter_context(run_files.Records(self.workdir, self.start)) if self.first else None
            stack.enter_context(contextlib.closing(self.checkpoints))
            interrupts = stack.enter_context(Interrupts())
            bar = stack.enter_context(ProgressBar(console, self.steps, self.per_epoch, step))
            self.logged = time.monotonic()
            for batches in grouped(ahead(fed(), place), self.calls()):
                self.pending.extend(self.stepper.step(batches))
                step += len(batches)
                del positions[: len(batches)]
                if step % self.log_every == 0 or step == self.steps:
                    self.log(step, bar)
                if step % self.evaluate_every == 0 or step == self.steps:
                    self.evaluate(step, bar)
                if step % self.checkpoint_every == 0 or step == self.steps or interrupts.received:
                    self.save(step, positions[0], wait=bool(interrupts.received))
                if interrupts.received and step < self.steps:
                    raise StoppedError(interrupts.received, step)
            if not self.evaluation:
                self.evaluate(step, bar)
        return self.finish(console)

    def calls(self) -> Iterator[int]:
        """How many steps each call takes: steps_per_call, or one where something is due before that many.

        It depends on the step number alone, so a run that was interrupted is compiled and rounded like one that was not.
        """
        step, most = self.start, self.recipe.steps_per_call
        while step < self.steps:
            due = min((step // every + 1) * every for every in (self.log_every, self.evaluate_every, self.checkpoint_every))
            size = most if step + most <= min(due, self.steps) else 1
            yield size
            step += size

    def look(self, step: int) -> None:
        """Fetch the metrics of the steps up to `step`; stop the run if one is not finite."""
        if not self.pending:
            return
        rows = np.asarray(jax.device_get(self.pending))
        self.pending.clear()
        finite = rows[:, self.task.metric_names.index("finite")] > 0
        if not finite.all():
            first = int(np.argmin(finite))
            bad = self.seen + first + 1
            self.checkpoints.wait()
            raise UserError(
                f"loss: not finite at step {bad} (loss {rows[first, 0]:.4g}, learning rate "
                f"{self.task.learning_rate(bad - 1):.3g}); {self.checkpoints.describe_last()}"
            )
        self.seen = step
        self.losses.extend(rows[:, 0].tolist())
        self.window.extend(rows)

    def log(self, step: int, bar: ProgressBar) -> None:
        """Write and show the means since the last time."""
        self.look(step)
        if not self.window:
            return
        means, now = np.mean(self.window, axis=0), time.monotonic()
        figures = {name: float(value) for name, value in zip(self.task.metric_names, means, strict=True) if name != "finite"}
        figures["learning_rate"] = self.task.learning_rate(step - 1)
        figures["examples_per_second"] = len(self.window) * self.recipe.batch_size / max(now - self.logged, 1e-9)
        self.window.clear()
        self.logged = now
        bar.update(step, figures)
        if self.records:
            self.records.write({"step": step, "split": "train"} | figures)

    def evaluate(self, step: int, bar: ProgressBar) -> None:
        self.log(step, bar)
        place = lambda batch: meshes.place_batch(batch, self.stepper.batch_sharding, whole=True)
        self.evaluation = self.task.evaluate(self.stepper, place)
        if self.records:
            self.records.write({"step": step, "split": "test"} | self.evaluation)
            self.task.illustrate(self.stepper.state, self.workdir, step)
        figures = "  ".join(f"{name} {value:.4g}" for name, value in self.evaluation.items())
        bar.say(f"epoch {step / self.per_epoch:g}  held out: {figures}")
        self.logged = time.monotonic()

    def save(self, step: int, feed: dict[str, Any], *, wait: bool) -> None:
        self.look(step)  # never save a state that a step with an infinite loss has touched
        extra = {
            "step": step,
            "seconds": self.seconds_before + time.monotonic() - self.begun,
            "feed": feed,
            "evaluation": self.evaluation,
        }
        loss = float(np.mean(self.losses)) if self.losses else math.inf
        self.checkpoints.save(step, self.stepper.state, extra, loss=loss, wait=wait)
        self.losses.clear()

    def finish(self, console: Console) -> dict[str, Any]:
        state = self.stepper.state
        summary = {
            "model": self.recipe.model,
            "data": self.recipe.data,
            **{f"eval_{name}": value for name, value in self.evaluation.items()},
            "steps": self.steps,
            "epochs": round(self.steps / self.per_epoch, 3),
            "seconds": round(self.seconds_before + time.monotonic() - self.begun, 2),
            **self.task.conclude(self.workdir, self.evaluation),
            "parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params)),
            "parameters_sha256": digest(named_leaves(state.params)),
        }
        if self.first:
            write_json(self.workdir / "summary.json", summary)
            run_files.draw_curves(self.workdir, f"{self.recipe.model} on {self.recipe.data}")
            print_summary(console, summary, "Finished")
            console.print(
                f"results in {self.workdir}/ (summary.json, metrics.jsonl, curves.png, checkpoints/)", highlight=False
            )
        return summary
