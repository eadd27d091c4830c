"""What a run is, from its first step to its last, and how far it is."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import time
from collections.abc import Iterator

import jax
import numpy as np

from experiments import data
from experiments.recipes.recipe import Recipe
from experiments.training.held_out import History
from experiments.training.task import Task


@dataclasses.dataclass(frozen=True)
class Context:
    """What stays the same from the first step of a run to the last, across interruptions."""

    recipe: Recipe
    dataset: data.Dataset
    task: Task
    workdir: pathlib.Path
    steps: int
    per_epoch: int

    @functools.cached_property
    def log_every(self) -> int:
        """Figures are averaged over a two-hundredth of the run, so that curves have as many points whatever its length."""
        return max(self.recipe.steps_per_call, self.steps // 200)

    @functools.cached_property
    def evaluate_every(self) -> int:
        return max(1, round(self.recipe.evaluate_every * self.per_epoch))

    @functools.cached_property
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
    judged: dict[str, History] = dataclasses.field(default_factory=dict)  # by figure, those that the run is judged by
    figures: dict[str, float] = dataclasses.field(default_factory=dict)  # the last ones logged that the summary has too
    stepping: float = 0.0  # seconds of steps, without evaluation
    waited: float = 0.0  # of them, those in which the step waited for data
    begun: float = dataclasses.field(default_factory=time.monotonic)
    logged: float = dataclasses.field(default_factory=time.monotonic)
    pending: list[jax.Array] = dataclasses.field(default_factory=list)  # metrics of steps not yet looked at
    window: list[np.ndarray] = dataclasses.field(default_factory=list)  # metrics of steps looked at, not yet logged
    losses: list[float] = dataclasses.field(default_factory=list)  # since the last checkpoint

    @property
    def total_seconds(self) -> float:
        return self.seconds + time.monotonic() - self.begun

    def as_extra(self) -> dict:
        """What a checkpoint holds of it, as JSON can."""
        kept = {name: getattr(self, name) for name in ("step", "evaluation", "evaluated", "figures", "stepping", "waited")}
        judged = {name: dataclasses.asdict(history) for name, history in self.judged.items()}
        return kept | {"seconds": self.total_seconds, "judged": judged}

    @classmethod
    def from_extra(cls, extra: dict) -> Progress:
        """Of a checkpoint, which may be of a version that knew less."""
        names = ("step", "seconds", "evaluation", "evaluated", "figures", "stepping", "waited")
        known = {name: extra[name] for name in names if name in extra}
        return cls(**known, judged={name: History(**said) for name, said in extra.get("judged", {}).items()})
