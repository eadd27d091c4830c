"""The training loop, from top to bottom: data, steps, metrics, evaluation, checkpoints, interruptions, summary."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
import pathlib
import platform
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from rich.console import Console

from experiments import data
from experiments.data.base import reader
from experiments.errors import UserError, explain
from experiments.measuring import machine
from experiments.measuring.result import write_json
from experiments.recipes.recipe import Recipe
from experiments.training import beginning, folder, length, processes, recipe_data, run_files, stage_rates
from experiments.training import mesh as meshes
from experiments.training.checkpoints import Checkpoints, digest, named_leaves
from experiments.training.interrupts import Interrupts, StoppedError
from experiments.training.model_file import save_trained
from experiments.training.progress import ProgressBar, print_summary
from experiments.training.quality import Judge
from experiments.training.stepper import Stepper
from experiments.training.task import Task
from experiments.training.tasks import make_task
from zoo.preprocessing import Preprocessing
from zoo.weights import runs


def ahead(batches: Iterator[Any], place: Any) -> Iterator[Any]:
    """Batches on the device, the next one in transit while this one is used."""
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
    """The versions and the device that the figures of a run depend on."""
    packages = machine.versions("jax", "jaxlib", "flax", "optax", "numpy")
    return packages | {"python": platform.python_version(), "device": jax.devices()[0].device_kind}


@dataclasses.dataclass(frozen=True)
class Context:
    """What stays the same from the first step of a run to the last, across interruptions."""

    recipe: Recipe
    dataset: data.Dataset
    task: Task
    workdir: pathlib.Path
    steps: int
    per_epoch: int

    @property
    def log_every(self) -> int:
        """Figures are averaged over a two-hundredth of the run, so that curves have as many points whatever its length."""
        return max(self.recipe.steps_per_call, self.steps // 200)

    @property
    def evaluate_every(self) -> int:
        return max(1, round(self.recipe.evaluate_every * self.per_epoch))

    @property
    def checkpoint_every(self) -> int:
        return max(1, round(self.recipe.checkpoint_every * self.per_epoch))

    def due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.steps

    def calls(self, step: int) -> Iterator[int]:
        """From `step` on, how many steps each call takes: steps_per_call, or one where something is due before that many.

        It depends on the step number alone, so a run that was interrupted is compiled and rounded like one that was not.
        """
        most = self.recipe.steps_per_call
        while step < self.steps:
            due = min((step // every + 1) * every for every in (self.log_every, self.evaluate_every, self.checkpoint_every))
            size = most if step + most <= min(due, self.steps) else 1
            yield size
            step += size


@dataclasses.dataclass
class Progress:
    """What changes, beside the state that the stepper holds."""

    step: int = 0
    seconds: float = 0.0  # of training, up to the start of this process
    evaluation: dict[str, float] = dataclasses.field(default_factory=dict)  # the last one
    evaluated: int = -1  # the step it is of
    begun: float = dataclasses.field(default_factory=time.monotonic)
    logged: float = dataclasses.field(default_factory=time.monotonic)
    pending: list[jax.Array] = dataclasses.field(default_factory=list)  # metrics of steps not yet looked at
    window: list[np.ndarray] = dataclasses.field(default_factory=list)  # metrics of steps looked at, not yet logged
    losses: list[float] = dataclasses.field(default_factory=list)  # since the last checkpoint

    @property
    def total_seconds(self) -> float:
        return self.seconds + time.monotonic() - self.begun


def train(
    recipe: Recipe,
    console: Console | None = None,
    judge: Callable[[Recipe, data.Dataset], Judge] | None = None,
    *,
    fit_batch: bool = False,
) -> dict[str, Any]:
    """Run a recipe from start, or from where it stopped, to its end.

    Args:
      judge: what a GAN's samples are measured with; `experiments.training.judge.judge_of`.
      fit_batch: whether data of fewer examples than a batch get a smaller one instead of an error.

    Returns:
      What summary.json holds.

    Raises:
      UserError: something the user can change; nothing that was saved before is lost.
      StoppedError: a signal arrived and the run was saved.
    """
    first = jax.process_index() == 0
    console = console or Console(quiet=not first, emoji=False)
    workdir = pathlib.Path(recipe.directory)
    with contextlib.ExitStack() as stack:
        processes.first(lambda: stack.enter_context(folder.locked(workdir)))
        return _train(recipe, console, workdir, judge, fit_batch)


def _train(
    recipe: Recipe,
    console: Console,
    workdir: pathlib.Path,
    judge: Callable[[Recipe, data.Dataset], Judge] | None,
    fit_batch: bool,
) -> dict[str, Any]:
    old, summary, look = processes.first(lambda: beginning.earlier(recipe, workdir))
    other_length = old is not None and length.is_other(old, recipe)
    if summary:
        print_summary(console, summary, "Finished before; --no-resume trains anew")
        return summary

    say = functools.partial(console.print, highlight=False, markup=False, soft_wrap=True)
    mesh, settings = meshes.make_mesh(recipe.mesh), recipe.settings()
    dataset = recipe_data.load(recipe, Preprocessing.from_dict(look) if look else None)
    if fit_batch:
        size = recipe_data.fitting_batch_size(recipe, dataset, mesh.shape["data"])
        if size != recipe.batch_size:
            say(f"batch size {size}, not {recipe.batch_size}: {dataset.name} has {len(dataset.train)} training examples")
        recipe = dataclasses.replace(recipe, batch_size=size)
    if recipe.batch_size > len(dataset.train):
        raise UserError(f"batch_size: {recipe.batch_size} given, {dataset.name} has {len(dataset.train)} training examples")
    if recipe.batch_size % mesh.shape["data"]:
        raise UserError(f"batch_size: {recipe.batch_size} given, a multiple of the {mesh.shape['data']} data devices is needed")
    batches = dataset.training_batches(recipe.batch_size, recipe.seed)
    steps = recipe.length(batches.per_epoch)
    if other_length:
        processes.first(lambda: length.check(workdir, recipe, steps))
    task = make_task(recipe, dataset, steps, batches.per_epoch, judge)
    run = Context(recipe, dataset, task, workdir, steps, batches.per_epoch)
    stepper = Stepper(task, recipe, mesh)
    if recipe.weights and not old:
        say(task.start_from(recipe.weights, stepper))

    config: dict[str, Any] = {"recipe": settings, "versions": versions()}
    if dataset.preprocessing and dataset.adjustable:
        config["preprocessing"] = dataset.preprocessing.as_dict()
    changed = config if not old or other_length else None
    processes.first(lambda: beginning.prepare(workdir, say, begins=not old, config=changed))
    checkpoints = Checkpoints(workdir / run_files.CHECKPOINTS)
    feed = reader(batches, steps, part=meshes.part(mesh))
    now = Progress()
    found = checkpoints.restore(stepper.state, stepper.shardings, discard=True) if old else None
    if found:
        stepper.state, extra, damaged = found
        now = Progress(extra["step"], extra["seconds"], extra["evaluation"], extra["evaluated"])
        feed.set_state(extra["feed"])
        for line in damaged:
            say(f"warning: {line}")
        console.print(f"continuing at step {now.step} of {steps}", highlight=False)
        if line := meshes.compare(extra.get("devices"), meshes.describe(mesh)):
            say(line)
        if old and (line := length.describe(old, recipe, steps, run.per_epoch, lambda: task.learning_rate(now.step))):
            say(line)
    elif recipe.weights and old:
        say(task.start_from(recipe.weights, stepper))
    if line := stage_rates.describe(stepper.state.params, task.rates):
        say(line)

    # The reader is ahead of the loop by one batch; a checkpoint needs its position for the step it is of.
    start, positions = now.step, [feed.get_state()]

    def fed() -> Iterator[dict[str, np.ndarray]]:
        for batch in itertools.islice(feed, steps - start):
            positions.append(feed.get_state())
            yield batch

    place = lambda batch: meshes.place_batch(batch, stepper.batch_sharding, whole=False)
    with contextlib.ExitStack() as stack:
        written = stack.enter_context(run_files.Metrics(workdir, start)) if jax.process_index() == 0 else None
        stack.enter_context(contextlib.closing(checkpoints))
        interrupts = stack.enter_context(Interrupts())
        bar = stack.enter_context(ProgressBar(console, steps, run.per_epoch, start))
        now.logged = time.monotonic()
        for group in grouped(ahead(fed(), place), run.calls(start)):
            now.pending.extend(stepper.step(group))
            now.step += len(group)
            del positions[: len(group)]
            if run.due(now.step, run.log_every):
                log(run, now, checkpoints, written, bar)
            if run.due(now.step, run.evaluate_every):
                evaluate(run, now, stepper, checkpoints, written, bar)
            stop = interrupts.reached()
            if run.due(now.step, run.checkpoint_every) or stop:
                save(run, now, stepper, checkpoints, positions[0], wait=bool(stop))
            if stop and now.step < steps:
                raise StoppedError(stop, now.step)
        if now.evaluated != steps:
            evaluate(run, now, stepper, checkpoints, written, bar)
    return finish(run, now, stepper, console)


def look(run: Context, now: Progress, checkpoints: Checkpoints) -> None:
    """Fetch the metrics of the steps that are done; stop the run if one is not finite."""
    if not now.pending:
        return
    rows = np.asarray(jax.device_get(now.pending))
    now.pending.clear()
    finite = rows[:, run.task.metric_names.index("finite")] > 0
    if not finite.all():
        first = int(np.argmin(finite))
        bad = now.step - len(rows) + first + 1
        checkpoints.wait()
        raise UserError(
            f"loss: not finite at step {bad} (loss {rows[first, 0]:.4g}, learning rate {run.task.learning_rate(bad - 1):.3g}); "
            f"{checkpoints.describe_last()}"
        )
    now.losses.extend(rows[:, 0].tolist())
    now.window.extend(rows)


def log(run: Context, now: Progress, checkpoints: Checkpoints, written: run_files.Metrics | None, bar: ProgressBar) -> None:
    """Write and show the means since the last time."""
    look(run, now, checkpoints)
    if not now.window:
        return
    means, moment = np.mean(now.window, axis=0), time.monotonic()
    figures = {name: float(value) for name, value in zip(run.task.metric_names, means, strict=True) if name != "finite"}
    figures["learning_rate"] = run.task.learning_rate(now.step - 1)
    figures["examples_per_second"] = len(now.window) * run.recipe.batch_size / max(moment - now.logged, 1e-9)
    now.window.clear()
    now.logged = moment
    bar.update(now.step, figures)
    if written:
        written.write({"step": now.step, "split": "train"} | figures)


def evaluate(
    run: Context, now: Progress, stepper: Stepper, checkpoints: Checkpoints, written: run_files.Metrics | None, bar: ProgressBar
) -> None:
    """Measure on the test data, write and show it."""
    log(run, now, checkpoints, written, bar)
    place = lambda batch: meshes.place_batch(batch, stepper.batch_sharding, whole=True)
    now.evaluation, now.evaluated = run.task.evaluate(stepper, place), now.step
    if written:
        written.write({"step": now.step, "split": "test"} | now.evaluation)
    run.task.illustrate(stepper.state, run.workdir, now.step)
    figures = "  ".join(f"{name} {value:.4g}" for name, value in now.evaluation.items())
    bar.say(f"epoch {now.step / run.per_epoch:g}  test: {figures}")
    now.logged = time.monotonic()


def save(run: Context, now: Progress, stepper: Stepper, checkpoints: Checkpoints, feed: dict[str, Any], *, wait: bool) -> None:
    look(run, now, checkpoints)  # never save a state that a step with an infinite loss has touched
    extra = {"step": now.step, "seconds": now.total_seconds, "feed": feed}
    extra |= {"evaluation": now.evaluation, "evaluated": now.evaluated, "devices": meshes.describe(stepper.mesh)}
    loss = float(np.mean(now.losses)) if now.losses else math.inf
    checkpoints.save(now.step, stepper.state, extra, loss=loss, wait=wait)
    if checkpoints.last_good is not None and jax.process_index() == 0:
        folder.drop_aside(run.workdir)
    now.losses.clear()


def finish(run: Context, now: Progress, stepper: Stepper, console: Console) -> dict[str, Any]:
    """Write the trained model, the curves and, last, the summary, which says that the run is finished."""
    params = stepper.state.params
    summary = {
        "model": run.recipe.model,
        "data": run.recipe.data,
        **{f"eval_{name}": value for name, value in now.evaluation.items()},
        "steps": run.steps,
        "epochs": round(run.steps / run.per_epoch, 3),
        "seconds": round(now.total_seconds, 2),
        **run.task.conclude(run.workdir, now.evaluation),
        **({"skipped": run.dataset.skipped} if run.dataset.skipped else {}),
        "parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)),
        "parameters_sha256": digest(named_leaves(params)),
    }
    files = ["summary.json", "metrics.jsonl", "curves.png", "checkpoints/"]
    try:
        save_trained(run.recipe, run.dataset, run.task, stepper.state, run.workdir, summary)
        files.insert(0, runs.MODEL)
    except ValueError as error:
        console.print(f"warning: no {runs.MODEL} was written: {explain(error)}", highlight=False, soft_wrap=True)
    if jax.process_index() == 0:
        folder.drop_aside(run.workdir)
        run_files.draw_curves(run.workdir, f"{run.recipe.model} on {run.recipe.data}")
        write_json(run.workdir / "summary.json", summary, indent=2)
        print_summary(console, summary, "Finished")
        if run.dataset.skipped:
            console.print(run_files.skipped_line(run.dataset.skipped), highlight=False, markup=False, soft_wrap=True)
        console.print(f"results in {run.workdir}/ ({', '.join(files)})", highlight=False, markup=False)
    return summary
