"""What a run writes and shows as it goes: figures, evaluations, checkpoints, and the files at its end."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import jax
import numpy as np

from experiments.errors import UserError, explain
from experiments.measuring.result import write_json
from experiments.training import folder, held_out, nans, processes, profiling, run_files
from experiments.training import mesh as meshes
from experiments.training.checkpoints import Checkpoints, digest, named_leaves
from experiments.training.device_use import DeviceUse
from experiments.training.feeding import Reading
from experiments.training.messages import Messages
from experiments.training.model_file import save_trained
from experiments.training.progress import ProgressBar, print_summary
from experiments.training.run_state import Context, Progress
from experiments.training.stepper import Stepper
from zoo.weights import runs


@dataclasses.dataclass
class Recorder:
    """Everything that the loop does between steps.

    Attributes:
      written: metrics.jsonl and trackers, None in all processes but the first.
    """

    run: Context
    now: Progress
    stepper: Stepper
    checkpoints: Checkpoints
    reading: Reading
    say: Messages
    written: run_files.Metrics | None
    bar: ProgressBar

    def __post_init__(self) -> None:
        self._device = DeviceUse(self.run.recipe.precision)

    def look(self) -> None:
        """Fetch the metrics of the steps that are done; stop the run if one is not finite."""
        run, now = self.run, self.now
        if not now.pending:
            return
        with profiling.part("metrics"):
            rows = np.stack([np.asarray(row) for row in now.pending])  # jax.device_get takes six times as long
        now.pending.clear()
        finite = rows[:, run.task.metric_names.index("finite")] > 0
        if not finite.all():
            first = int(np.argmin(finite))
            bad = now.step - len(rows) + first + 1
            rate = run.task.learning_rate(bad - 1)
            said = f"loss: not finite at step {bad} (loss {rows[first, 0]:.4g}, learning rate {rate:.3g})"
            raise UserError(f"{said}; {self.last_checkpoint()}")
        now.losses.extend(rows[:, 0].tolist())
        now.window.extend(rows)

    def last_checkpoint(self) -> str:
        """What there is to go on from, once what is being saved is saved."""
        self.checkpoints.wait()
        return self.checkpoints.describe_last()

    def log(self) -> None:
        """Write and show the means since the last time."""
        self.look()
        run, now = self.run, self.now
        if not now.window:
            return
        moment, count = time.monotonic(), len(now.window)
        seconds = max(moment - now.logged, 1e-9)
        figures: dict[str, float] = {}
        for name, column in zip(run.task.metric_names, np.transpose(now.window), strict=True):
            if name.endswith("norm"):
                column = column[column >= 0]  # of the steps that computed one
            if name != "finite" and len(column):
                figures[name] = float(np.mean(column))
        norms = {name: value for name, value in figures.items() if name.endswith("norm")}
        use = self._device.figures(self.stepper, count, seconds)
        figures["learning_rate"] = run.task.learning_rate(now.step - 1)
        figures["examples_per_second"] = count * run.recipe.batch_size / seconds
        figures["input_wait"] = min(self.reading.seconds / seconds, 1.0)
        figures |= use
        now.stepping, now.waited = now.stepping + seconds, now.waited + min(self.reading.seconds, seconds)
        now.figures |= norms | use
        now.window.clear()
        self.reading.seconds, now.logged = 0.0, moment
        self.bar.update(now.step, figures)
        if self.written:
            self.written.write({"step": now.step, "split": "train"} | figures)

    def evaluate(self) -> bool:
        """Measure on the test data, write and show it; whether it is the best by the figure of --best."""
        self.log()
        run, now = self.run, self.now
        place = lambda batch: meshes.place_batch(batch, self.stepper.batch_sharding, whole=True)
        with profiling.part("evaluation"), nans.named(f"the evaluation after step {now.step}", self.last_checkpoint):
            now.evaluation, now.evaluated = run.task.evaluate(self.stepper, place), now.step
            images = run.task.illustrate(self.stepper.state, run.workdir, now.step)
        if self.written:
            self.written.write({"step": now.step, "split": "test"} | now.evaluation)
            self.written.images(now.step, images)
        figures = "  ".join(f"{name} {value:.4g}" for name, value in now.evaluation.items())
        self.bar.say(f"epoch {now.step / run.per_epoch:g}  test: {figures}")
        better = self._judge()
        self.reading.seconds, now.logged = 0.0, time.monotonic()
        return better

    def _judge(self) -> bool:
        recipe, now = self.run.recipe, self.now
        figures = held_out.figures(recipe)
        if not figures:
            return False
        # A judge of images may round otherwise on another machine: all processes go by what the first one found.
        values = processes.first(lambda: {figure: now.evaluation[figure] for figure in figures})
        better = {
            figure: now.judged.setdefault(figure, held_out.History()).add(self.run.task.directions[figure], value, now.step)
            for figure, value in values.items()
        }
        return better.get(recipe.best or "", False)

    def ends_early(self) -> str:
        """Why the run ends before its last step; empty where it does not."""
        return held_out.ends_early(self.run.recipe, self.now.judged)

    def save(self, *, wait: bool) -> None:
        """Start to save, or `wait` until it is done."""
        self.look()  # never save a state that a step with an infinite loss has touched
        run, now = self.run, self.now
        with profiling.part("checkpoint"):
            begun = time.monotonic()
            extra = now.as_extra() | {"feed": self.reading.position, "devices": meshes.describe(self.stepper.mesh)}
            loss = float(np.mean(now.losses)) if now.losses else math.inf
            best = now.judged.get(run.recipe.best or "")
            rank = best.rank if best and best.step == now.step else 0
            self.checkpoints.save(now.step, self.stepper.state, extra, loss=loss, rank=rank, wait=wait)
            if self.checkpoints.last_good is not None and jax.process_index() == 0:
                folder.drop_aside(run.workdir)
        self.say.debug(f"checkpoint of step {now.step}: the step waited {1e3 * (time.monotonic() - begun):.1f} ms")
        now.losses.clear()

    def finish(self) -> dict[str, Any]:
        """Write the trained model, the curves and, last, the summary, which says that the run is finished."""
        run, now, params, console = self.run, self.now, self.stepper.state.params, self.say.console
        why, best = self.ends_early(), now.judged.get(run.recipe.best or "")
        summary = {
            "model": run.recipe.model,
            "data": run.recipe.data,
            **{f"eval_{name}": value for name, value in now.evaluation.items()},
            **({"best_step": best.step, f"best_{run.recipe.best}": best.value} if best else {}),
            "steps": now.step,
            "epochs": round(now.step / run.per_epoch, 3),
            **({"stopped_early": why} if why else {}),
            "seconds": round(now.total_seconds, 2),
            "input_wait": round(now.waited / max(now.stepping, 1e-9), 6),
            **now.figures,
            **run.task.conclude(run.workdir, now.evaluation),
            **({"skipped": run.dataset.skipped} if run.dataset.skipped else {}),
            "parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)),
            "parameters_sha256": digest(named_leaves(params)),
        }
        files = ["summary.json", "metrics.jsonl", "curves.png", "checkpoints/"]
        try:
            save_trained(run.recipe, run.dataset, run.task, self.stepper.state, run.workdir, summary)
            files.insert(0, runs.MODEL)
        except ValueError as error:
            self.say.warning(f"no {runs.MODEL} was written: {explain(error)}")
        if jax.process_index() == 0:
            folder.drop_aside(run.workdir)
            run_files.draw_curves(run.workdir, f"{run.recipe.model} on {run.recipe.data}")
            write_json(run.workdir / "summary.json", summary, indent=2)
            print_summary(console, summary, "Finished")
            if run.dataset.skipped:
                self.say.warning(run_files.skipped_line(run.dataset.skipped))
            self.say.info(f"results in {run.workdir}/ ({', '.join(files)})")
        return summary
