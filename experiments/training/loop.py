"""The training loop, from top to bottom: data, steps, metrics, evaluation, checkpoints, interruptions, summary."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import platform
import time
from collections.abc import Callable
from typing import Any

import jax
from rich.console import Console

from experiments import data
from experiments.data.base import reader
from experiments.errors import UserError
from experiments.measuring import machine
from experiments.recipes.recipe import Recipe
from experiments.training import beginning, folder, held_out, length, nans, processes, profiling, recipe_data, stage_rates
from experiments.training import mesh as meshes
from experiments.training.checkpoints import Checkpoints
from experiments.training.feeding import Reading, ahead, grouped
from experiments.training.interrupts import Interrupts, StoppedError
from experiments.training.messages import Messages
from experiments.training.profiling import Profile
from experiments.training.progress import ProgressBar, print_summary
from experiments.training.quality import Judge
from experiments.training.recorder import Recorder
from experiments.training.run_files import CHECKPOINTS, Metrics
from experiments.training.run_state import Context, Progress
from experiments.training.stepper import Stepper
from experiments.training.tasks import make_task
from experiments.training.trackers import Trackers, names
from zoo.preprocessing import Preprocessing


def versions() -> dict[str, str]:
    """The versions and the device that the figures of a run depend on."""
    packages = machine.versions("jax", "jaxlib", "flax", "optax", "numpy")
    return packages | {"python": platform.python_version(), "device": jax.devices()[0].device_kind}


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
    say = Messages(console, recipe.log_level)
    names(recipe.tracker)
    old, summary, look = processes.first(lambda: beginning.earlier(recipe, workdir))
    other_length = old is not None and length.is_other(old, recipe)
    if summary:
        print_summary(say.console, summary, "Already finished; --no-resume trains again")
        return summary

    mesh, settings = meshes.make_mesh(recipe.mesh), recipe.settings()
    dataset = recipe_data.load(recipe, Preprocessing.from_dict(look) if look else None)
    if fit_batch:
        size = recipe_data.fitting_batch_size(recipe, dataset, mesh.shape["data"])
        if size != recipe.batch_size:
            say.info(f"batch size {size}, not {recipe.batch_size}: {dataset.name} has {len(dataset.train)} training examples")
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
    held_out.check(recipe, task.directions)
    run = Context(recipe, dataset, task, workdir, steps, batches.per_epoch)
    stepper = Stepper(task, recipe, mesh)
    if recipe.weights and not old:
        say.info(task.start_from(recipe.weights, stepper))

    config: dict[str, Any] = {"recipe": settings, "versions": versions()}
    if dataset.preprocessing and dataset.adjustable:
        config["preprocessing"] = dataset.preprocessing.as_dict()
    changed = config if not old or other_length else None
    processes.first(lambda: beginning.prepare(workdir, say.info, begins=not old, config=changed))
    checkpoints = Checkpoints(workdir / CHECKPOINTS)
    feed = reader(batches, steps, part=meshes.part(mesh))
    now = Progress()
    found = checkpoints.restore(stepper.state, stepper.shardings, discard=True) if old else None
    if found:
        stepper.state, extra, damaged = found
        now = Progress.from_extra(extra)
        feed.set_state(extra["feed"])
        for line in damaged:
            say.warning(line)
        say.info(f"continuing at step {now.step} of {steps}")
        if line := meshes.compare(extra.get("devices"), meshes.describe(mesh)):
            say.info(line)
        if old and (line := length.describe(old, recipe, steps, run.per_epoch, lambda: task.learning_rate(now.step))):
            say.info(line)
    elif recipe.weights and old:
        say.info(task.start_from(recipe.weights, stepper))
    if line := stage_rates.describe(stepper.state.params, task.rates):
        say.info(line)

    start, reading = now.step, Reading(feed, lambda: now.pending[-1] if now.pending else None)
    place = lambda batch: meshes.place_batch(batch, stepper.batch_sharding, whole=False)
    with contextlib.ExitStack() as whole:
        if recipe.debug_nans:
            whole.enter_context(jax.debug_nans(True))
        written = None
        if jax.process_index() == 0:
            written = whole.enter_context(Metrics(workdir, start, Trackers(recipe.tracker, say.warning)))
        with contextlib.ExitStack() as stack:
            stack.enter_context(checkpoints)
            interrupts = stack.enter_context(Interrupts())
            bar = stack.enter_context(ProgressBar(say.console, steps, run.per_epoch, start))
            profile = stack.enter_context(Profile(workdir, recipe.profile or 0, stepper, say))
            recorder = Recorder(run, now, stepper, checkpoints, reading, say, written, bar)
            ended, now.logged = recorder.ends_early(), time.monotonic()
            for group in grouped(ahead(reading.batches(steps - start), place), run.calls(start)) if not ended else ():
                profile.before(len(group))
                with profiling.part("dispatch"), nans.named(nans.steps(now.step, len(group)), recorder.last_checkpoint):
                    now.pending.extend(stepper.step(group))
                now.step += len(group)
                reading.used(len(group))
                if run.due(now.step, run.log_every):
                    recorder.log()
                better = run.due(now.step, run.evaluate_every) and recorder.evaluate()
                ended, stop = recorder.ends_early(), interrupts.reached()
                if run.due(now.step, run.checkpoint_every) or stop or better or ended:
                    recorder.save(wait=bool(stop))
                profile.after(len(group))
                if ended:
                    break
                if stop and now.step < steps:
                    raise StoppedError(stop, now.step)
            if now.evaluated != now.step:
                recorder.evaluate()
        if ended:
            say.info(f"stopped early at step {now.step}: {ended}")
        summary = recorder.finish()
        if written:
            written.finish(summary)
    return summary
