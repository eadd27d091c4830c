"""Early stop and the best checkpoint by a figure on the test data: the same whether a run was interrupted or not."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import pathlib
import signal
from typing import Any

import jax
import numpy as np
import pytest
from rich.console import Console

import zoo
import zoo.__main__
from experiments import evaluate
from experiments.errors import UserError
from experiments.errors import run as command
from experiments.recipes.recipe import Recipe
from experiments.training import held_out, loop, recorder
from experiments.training.classification import ClassificationTask
from experiments.training.interrupts import Interrupts, StoppedError
from experiments.training.restore import load_run

# An evaluation every third step, a checkpoint every second, so that neither has always the other beside it.
SMALL = Recipe(model="lenet5", data="digits", batch_size=64, steps=30, evaluate_every=3 / 22, checkpoint_every=2 / 22)
# The accuracies found: best at step 9, which step 15 only equals.
FOUND = {3: 0.2, 6: 0.1, 9: 0.5, 12: 0.4, 15: 0.5, 18: 0.3, 21: 0.9}


def go(workdir: pathlib.Path, **changes) -> tuple[dict, str]:
    console = Console(file=io.StringIO(), width=200)
    summary = loop.train(dataclasses.replace(SMALL, workdir=str(workdir), **changes), console)
    return summary, console.file.getvalue()  # type: ignore[attr-defined]


def same(summary: dict) -> dict:
    """A summary without what depends on the clock."""
    return {name: value for name, value in summary.items() if name not in ("seconds", "input_wait")}


@pytest.fixture
def _found(monkeypatch: pytest.MonkeyPatch) -> None:
    def stand_in(task: Any, stepper: Any, place: Any) -> dict[str, float]:
        return {"accuracy": FOUND.get(int(stepper.state.step), 0.0), "loss": 1.0}

    monkeypatch.setattr(ClassificationTask, "evaluate", stand_in)


@pytest.mark.usefixtures("_found")
def test_early_stop_and_best_survive_interruptions(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"early_stop": "accuracy:3", "best": "accuracy"}
    whole, said = go(tmp_path / "whole", **changes)
    assert whole["steps"] == 18
    assert whole["stopped_early"] == "accuracy was best at step 9 (0.5), 3 evaluations ago"
    assert (whole["best_step"], whole["best_accuracy"], whole["eval_accuracy"]) == (9, 0.5, 0.3)
    assert "stopped early at step 18: accuracy was best at step 9" in said

    # Stopped between two evaluations, then killed with everything saved but the files of the end, then continued.
    reached = Interrupts.reached
    calls = iter(range(1, 100))
    monkeypatch.setattr(Interrupts, "reached", lambda self: signal.SIGTERM if next(calls) == 13 else reached(self))
    with pytest.raises(StoppedError, match="at step 13"):
        go(tmp_path / "parts", **changes)
    finish = recorder.Recorder.finish
    monkeypatch.setattr(recorder.Recorder, "finish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "parts", **changes)
    monkeypatch.setattr(recorder.Recorder, "finish", finish)
    parts, said = go(tmp_path / "parts", **changes)
    assert same(parts) == same(whole)
    assert "stopped early at step 18" in said

    for folder in (tmp_path / "whole", tmp_path / "parts"):
        kept = sorted(int(p.name) for p in (folder / "checkpoints").iterdir() if p.name.isdigit())
        assert 9 in kept, "rotation leaves the best"
        assert kept[-2:] == [16, 18]
        assert len(kept) <= 4
    assert "Already finished" in go(tmp_path / "parts", **changes)[1]

    # More patience, and the run goes on; what it finds then is better.
    longer, _ = go(tmp_path / "parts", early_stop="accuracy:30", best="accuracy")
    assert (longer["steps"], longer["best_step"]) == (30, 21)
    assert "stopped_early" not in longer
    with pytest.raises(UserError, match=r"another run \(best 'accuracy' there, None now\)"):
        go(tmp_path / "parts")


def test_the_best_checkpoint_is_what_evaluate_and_predict_take(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = ClassificationTask.evaluate
    with monkeypatch.context() as patched:
        patched.setattr(ClassificationTask, "evaluate", lambda *_: {"accuracy": 0.5, "loss": 1.0})
        go(tmp_path, steps=7, best="loss")  # the first of several as good: step 3
    assert ClassificationTask.evaluate is real
    best = load_run(tmp_path, checkpoint="best")
    assert (best.step, load_run(tmp_path).step, load_run(tmp_path, checkpoint=6).step) == (3, 7, 6)
    with pytest.raises(UserError, match=r"checkpoint: 5 given, .* has best, newest, 3, 6, 7"):
        load_run(tmp_path, checkpoint=5)
    images = best.dataset.test.arrays["image"][:50]
    expected = best.task.model(best.stepper.state)(images)
    model: Any = zoo.load_model(tmp_path, checkpoint="best")
    np.testing.assert_array_equal(model(images), expected)
    assert not np.array_equal(zoo.load_model(tmp_path)(images), expected)  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"checkpoint: 5 given, .* has 3, 6, 7, newest, best"):
        zoo.load_model(tmp_path, checkpoint=5)

    assert command(evaluate.main, [str(tmp_path), "--checkpoint", "best", "--worst", "0"]) == 0
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written["step"] == 3
    capsys.readouterr()
    from PIL import Image

    Image.fromarray(np.uint8(255 * (images[0, :, :, 0] < 0))).save(tmp_path / "digit.png")
    run = ["predict", str(tmp_path), str(tmp_path / "digit.png"), "-k", "10"]
    probabilities = []
    for more in ([], ["--checkpoint", "best"], ["--checkpoint", "3"]):
        assert zoo.__main__.main([*run, *more]) == 0
        probabilities.append(capsys.readouterr().out)
    assert probabilities[0] != probabilities[1] == probabilities[2]
    assert zoo.__main__.main(["predict", "resnet18", "x.png", "--checkpoint", "best"]) == 2


def test_a_history_against_the_whole_list(rng: np.random.Generator) -> None:
    for direction in (1, -1):
        history, values = held_out.History(), rng.integers(0, 8, 40).astype(float)  # with ties
        values[rng.integers(0, 40, 6)] = math.nan
        for step, value in enumerate(values):
            history.add(direction, float(value), step)
            so_far = [v * direction for v in values[: step + 1] if not math.isnan(v)]
            first = next((i for i, v in enumerate(values) if so_far and v * direction == max(so_far)), None)
            assert (history.step if so_far else None) == first
            assert history.since == (step - first if first is not None else step + 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"early_stop": "acc"}, r"early_stop: 'acc' given, the figures .* are loss \(lower is better\), accuracy \(higher is"),
        ({"early_stop": "loss:0"}, "early_stop: 'loss:0' given, FIGURE:PATIENCE with 1 evaluation or more is needed"),
        ({"early_stop": "loss:x"}, "early_stop: 'loss:x' given"),
        ({"early_stop": ":3"}, "early_stop: '' given"),
        ({"best": "perplexity"}, "best: 'perplexity' given, the figures on the test data are loss"),
        ({"best": ""}, "best: '' given"),
    ],
    ids=str,
)
def test_unknown_figures_are_refused_with_those_there_are(changes: dict, message: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=message):
        go(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_directions_of_every_task() -> None:
    from experiments.training.gan_task import BETTER
    from experiments.training.sequence_tasks import LanguageModelTask

    assert BETTER["frechet_distance"] == -1
    assert LanguageModelTask.better == {"loss": -1, "accuracy": 1, "bits_per_character": -1}
    assert jax.tree.all(jax.tree.map(lambda way: way in (1, -1), BETTER))
