"""What a training run is: every choice in one frozen dataclass, each of them a flag of `experiments.train`."""

from __future__ import annotations

import ast
import dataclasses
import typing
from typing import Any, Literal

from experiments.errors import UserError, check_kind, nearest
from experiments.flags import LARGEST_SEED

ELSEWHERE = ("workdir", "resume", "tracker", "log_level", "debug_nans", "profile")  # fields that decide no result
LARGEST = 1e30  # float32 ends a little above
MOST_STEPS = 2**31  # the state counts them as int32


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Every choice of a training run. A recipe file sets what suits its model and data; a flag overrides any of it."""

    model: str
    """Registry name; see `python -m zoo list`. Or MODULE:FUNCTION, a function of one's own that returns an nnx.Module."""
    data: str
    """Data set: NAME, NAME:PATH, or your own as MODULE:FUNCTION[:PATH]."""
    task: Literal["classification", "language_model", "tagging", "gan"] = "classification"
    """Kind of task."""
    epochs: float = 10
    """Passes over the training data."""
    steps: int | None = None
    """Optimizer steps; overrides epochs."""
    batch_size: int = 128
    """Examples per step, over all devices."""
    learning_rate: float = 1e-3
    """Peak learning rate of the schedule."""
    optimizer: Literal["sgd", "adam", "adamw", "lamb", "rmsprop"] = "adamw"
    """sgd has Nesterov momentum."""
    momentum: float = 0.9
    """Momentum of sgd and rmsprop, beta1 of the others."""
    beta2: float = 0.999
    """Second-moment decay of adam, adamw and lamb."""
    schedule: Literal["constant", "cosine", "step", "one_cycle"] = "cosine"
    """Learning rate over time, after the warm-up: step divides by ten at 1/3, 2/3 and 8/9 of the run."""
    warmup_epochs: float = 0
    """Linear rise of the learning rate from zero, in epochs."""
    weight_decay: float = 0.0
    """Decay of matrices and convolution kernels, not of biases and norms."""
    clip_norm: float | None = None
    """Largest global norm of a gradient; larger ones are scaled down."""
    accumulate: int = 1
    """Batches whose gradients are averaged for one optimizer update."""
    steps_per_call: int = 1
    """Steps compiled into one call, for steps of less than a millisecond."""
    label_smoothing: float = 0.0
    """Share of the target spread evenly over all classes."""
    weights: str | None = None
    """Initial weights: a file, a run, torchvision://NAME or hf://NAME."""
    freeze_until: str | None = None
    """First stage to train, such as layer4 or classifier; earlier ones are frozen."""
    layer_decay: float | None = None
    """Factor on the learning rate for each stage further from the output."""
    ema: float | None = None
    """Decay of a moving average of the weights, which evaluation then uses."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the computation; parameters stay float32."""
    implementation: Literal["auto", "xla", "triton", "pallas", "interpret", "ptx"] = "auto"
    """Kernels to use."""
    seed: int = 0
    """Seed of the initial weights, the order of the data and all random draws."""
    evaluate_every: float = 1
    """Epochs between evaluations on the test data."""
    checkpoint_every: float = 1
    """Epochs between checkpoints."""
    mesh: str = "data=-1"
    """Devices as named axes, such as data=4,model=2; -1 means all that remain."""
    early_stop: str | None = None
    """FIGURE[:N]: end after N evaluations (5) without a better FIGURE on the test data."""
    best: str | None = None
    """Figure on the test data; the checkpoint where it was best is kept too."""
    workdir: str | None = None
    """Folder of the run; by default runs/MODEL-DATA."""
    resume: bool = True
    """Resume the run found in workdir, or replace it."""
    tracker: str = "tensorboard"
    """Where figures go: tensorboard, none, or MODULE:CLASS; several are separated by commas."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that the console shows."""
    debug_nans: bool = False
    """Name the operation that produces the first NaN; slow."""
    profile: int | None = None
    """Number of steps to trace for xprof or Perfetto."""
    model_options: str = ""
    """Options of zoo.create_model, as NAME=VALUE,NAME=VALUE."""
    data_options: str = ""
    """Options of the data set, in the same form."""
    task_options: str = ""
    """Options of the task, in the same form. For a GAN: loss=non_saturating, least_squares, hinge or wasserstein_gp; d_steps,
    fresh_latents, penalty, r1, conditional, judge (docs/training.md)."""

    def __post_init__(self) -> None:
        for name, kind in type(self).__annotations__.items():
            if kind.startswith("Literal"):
                _check_choice(name, getattr(self, name))
            else:
                check_kind(name, getattr(self, name), kind)
        positive = ("epochs", "steps", "batch_size", "learning_rate", "clip_norm", "accumulate", "steps_per_call", "profile")
        for name in (*positive, "evaluate_every", "checkpoint_every"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise UserError(f"{name}: {getattr(self, name)} given, a number above 0 is needed")
        for name, low, high in (("momentum", 0, 1), ("beta2", 0, 1), ("label_smoothing", 0, 1), ("ema", 0, 1)):
            value = getattr(self, name)
            if value is not None and not low <= value < high:
                raise UserError(f"{name}: {value} given, at least {low} and below {high} is needed")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise UserError(f"layer_decay: {self.layer_decay} given, above 0 and at most 1 is needed")
        for name in ("weights", "freeze_until", "layer_decay"):
            if self.task == "gan" and getattr(self, name) is not None:
                raise UserError(f"{name}: {getattr(self, name)} given, a GAN takes none")
        for name in ("warmup_epochs", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name}: {getattr(self, name)} given, 0 or more is needed")
        for name in ("learning_rate", "weight_decay", "clip_norm"):
            if (getattr(self, name) or 0) > LARGEST:
                raise UserError(f"{name}: {getattr(self, name)} given, at most {LARGEST:g} is allowed")
        for name in ("steps", "batch_size", "accumulate", "steps_per_call", "profile"):
            if (getattr(self, name) or 0) >= MOST_STEPS:
                raise UserError(f"{name}: {getattr(self, name)} given, a number below 2**31 is needed")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise UserError(f"seed: {self.seed} given, 0 to {LARGEST_SEED} is needed")

    def length(self, per_epoch: int) -> int:
        """Steps in the whole run, of which an epoch has `per_epoch`.

        Raises:
          UserError: more than can be counted, or fewer than one update takes.
        """
        if self.steps is None and self.epochs * per_epoch >= MOST_STEPS:
            raise UserError(f"epochs: {self.epochs:g} given, which is 2**31 steps or more")
        steps = self.steps or max(1, round(self.epochs * per_epoch))
        if self.accumulate > steps:
            raise UserError(f"accumulate: {self.accumulate} given, the run has {steps} steps and would change nothing")
        return steps

    def options(self, which: Literal["model", "data", "task"]) -> dict[str, Any]:
        """The further keywords as a dict: {"dropout": 0.1} from "dropout=0.1"."""
        options: dict[str, Any] = {}
        for part in filter(None, getattr(self, f"{which}_options").split(",")):
            name, equals, value = part.partition("=")
            if not equals or not name.strip().isidentifier() or name.strip() in options:
                once = " once" if name.strip() in options else ""
                raise UserError(f"{which}_options: {part[:60]!r} given, NAME=VALUE is needed{once}")
            try:
                options[name.strip()] = ast.literal_eval(value.strip())
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                options[name.strip()] = value.strip()
        return options

    @property
    def directory(self) -> str:
        return self.workdir or f"runs/{self.model.replace(':', '.')}-{self.data.partition(':')[0]}"

    def settings(self) -> dict[str, Any]:
        """What decides the result of the run: all but where it is kept and how it is watched."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in ELSEWHERE}


def _check_choice(name: str, value: Any) -> None:
    choices = typing.get_args(typing.get_type_hints(Recipe)[name])
    if value not in choices:
        raise UserError(nearest(name, str(value), choices))
