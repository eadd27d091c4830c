"""A run seen from outside: what it logs of itself, profile, trackers, what the console shows, NaNs."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import pathlib
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from rich.console import Console

from experiments import data, train
from experiments.data.base import ShuffledBatches
from experiments.errors import UserError
from experiments.errors import run as command
from experiments.recipes import find
from experiments.recipes.recipe import Recipe
from experiments.training import device_use, feeding, loop, messages, profiling, stepper, trackers
from experiments.training.classification import ClassificationTask
from experiments.training.gan_task import GanTask

SMALL = Recipe(model="lenet5", data="digits", batch_size=64, steps=6, evaluate_every=0.25, checkpoint_every=0.125)


def go(workdir: pathlib.Path, **changes) -> tuple[dict, str]:
    console = Console(file=io.StringIO(), width=200)
    summary = loop.train(dataclasses.replace(SMALL, workdir=str(workdir), **changes), console)
    return summary, console.file.getvalue()  # type: ignore[attr-defined]


def rows_of(workdir: pathlib.Path, split: str = "train") -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["split"] == split]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, dict]:
    """A run that nobody watches."""
    workdir = tmp_path_factory.mktemp("plain") / "run"
    return workdir, go(workdir, steps=12)[0]


# -- profile -----------------------------------------------------------------------------------------------------------


def test_a_profile_says_where_the_time_went_and_changes_nothing(plain: tuple, tmp_path: pathlib.Path) -> None:
    summary, said = go(tmp_path, steps=12, profile=5)
    assert summary["parameters_sha256"] == plain[1]["parameters_sha256"]
    (file,) = (tmp_path / "profile").rglob("*.xplane.pb")
    assert str(file) in said
    assert file.with_name(file.name.replace(".xplane.pb", ".trace.json.gz")).exists()
    found = profiling.spent(file)
    assert min(found.parts["waiting for data"], found.parts["dispatch"], found.parts["metrics"]) > 0
    assert sum(found.parts.values()) <= found.wall * (1 + 1e-9)  # they follow one another; the sum rounds
    assert found.operations
    assert min(found.operations.values()) >= 0
    assert "5 steps traced" in said
    assert all(name in said for name in ("waiting for data", "dispatch", "compiled operation"))
    assert max(found.operations, key=found.operations.__getitem__) in said


def test_a_run_too_short_to_be_profiled_says_so(tmp_path: pathlib.Path) -> None:
    assert "warning: profile: nothing was traced" in go(tmp_path, steps=2, profile=1)[1]


def test_time_within_an_operation_counts_once(rng: np.random.Generator) -> None:
    events, names = [(0, 1000, "outer")], iter("abcdefgh")
    for start in range(0, 1000, 250):  # four inside, each with one inside itself
        begin, end = start + rng.integers(0, 60), start + rng.integers(190, 250)
        events += [(begin, end, next(names)), (begin + 20, end - 20, next(names))]
    owner = np.zeros(1000, int)
    for index, (start, end, _) in enumerate(events):  # the innermost comes last
        owner[start:end] = index
    found = profiling._own([events[i] for i in rng.permutation(len(events))])
    for index, (_, _, name) in enumerate(events):
        assert found[name] == pytest.approx((owner == index).sum() / 1e9, rel=1e-9)


# -- figures -----------------------------------------------------------------------------------------------------------


def test_waiting_counts_only_where_the_device_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))  # every look at it is a second later
    monkeypatch.setattr(feeding.time, "monotonic", lambda: next(clock))

    class Feed:
        def __init__(self) -> None:
            self.given = 0

        def __next__(self) -> int:
            self.given += 1
            return self.given

        def get_state(self) -> int:
            return self.given

    results = iter([None, types.SimpleNamespace(is_ready=lambda: False), types.SimpleNamespace(is_ready=lambda: True)])
    reading = feeding.Reading(Feed(), lambda: next(results))  # type: ignore[arg-type, return-value]
    waited = []
    for _ in reading.batches(3):
        waited.append(reading.seconds)
        reading.used(1)
    assert waited == [1, 1, 2]
    assert reading.position == 3


def test_figures_of_the_step_are_in_log_summary_and_tensorboard(plain: tuple) -> None:
    workdir, summary = plain
    rows = rows_of(workdir)
    assert all(0 <= row["input_wait"] <= 1 and row["gradient_norm"] > 0 for row in rows)
    assert summary["gradient_norm"] == rows[-1]["gradient_norm"]
    assert 0 <= summary["input_wait"] <= 1
    (events,) = (workdir / "tensorboard").glob("events.*")
    assert all(name in events.read_bytes() for name in (b"train/gradient_norm", b"train/input_wait"))


def distance(a: Any, b: Any) -> float:
    return float(
        np.sqrt(sum(np.sum((np.float64(x) - np.float64(y)) ** 2) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)))
    )


# A step moves the parameters by their gradient.
PLAIN_SGD: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.0, "schedule": "constant", "learning_rate": 1.0}


def test_gradient_norm_is_that_of_the_update(rng: np.random.Generator) -> None:
    plain_sgd = PLAIN_SGD | {"seed": int(rng.integers(1000))}
    norms = {}
    for accumulate in (1, 2):
        recipe = dataclasses.replace(SMALL, accumulate=accumulate, **plain_sgd)
        dataset = data.load("digits")
        task = ClassificationTask(recipe, dataset, 6, 22)
        before = task.init()
        after, vector = jax.jit(task.train_step)(before, dataset.training_batches(64, 0)[3])
        norms[accumulate] = dict(zip(task.metric_names, np.asarray(vector), strict=True))["gradient_norm"]
        moved = distance(before.params, after.params)
        # Subtracting parameters of up to 1 leaves 1e-7 of each of the 61,706 values uncertain.
        assert moved == pytest.approx(norms[1], rel=1e-3) if accumulate == 1 else moved == 0
    assert norms[2] == norms[1], "of each batch, whether or not it is followed by an update"


def test_gradient_norms_of_both_networks_of_a_gan(rng: np.random.Generator) -> None:
    changes = PLAIN_SGD | {"ema": None, "weight_decay": 0.0}
    recipe = dataclasses.replace(
        find("gan_mlp"), **changes, model_options="hidden=16", task_options="d_steps=2", clip_norm=None
    )
    dataset = data.load("digits", **recipe.options("data"))
    task = GanTask(recipe, dataset, 6, 22)

    def step(state: Any, batch: Any) -> Any:
        (prepared,) = task.prepare(state, [batch])
        return task.train_step(state, prepared)

    batches, first = dataset.training_batches(64, int(rng.integers(1000))), task.init()
    second, vector = jax.jit(step)(first, batches[0])
    figures = dict(zip(task.metric_names, np.asarray(vector), strict=True))
    assert figures["generator_gradient_norm"] == -1, "this step leaves the generator as it is"
    moved = distance(first.params["discriminator"], second.params["discriminator"])
    assert moved == pytest.approx(figures["discriminator_gradient_norm"], rel=1e-3)  # as above
    third, vector = jax.jit(step)(second, batches[1])
    figures = dict(zip(task.metric_names, np.asarray(vector), strict=True))
    moved = distance(second.params["generator"], third.params["generator"])
    assert moved == pytest.approx(figures["generator_gradient_norm"], rel=1e-3)


class Gpu:
    """Stands in for a device."""

    def __init__(self, kind: str, peak: int):
        self.device_kind, self._peak = kind, peak

    def memory_stats(self) -> dict[str, int]:
        return {"bytes_in_use": 1, "peak_bytes_in_use": self._peak}


def test_memory_and_share_of_a_known_gpu(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_use, "devices", lambda: [Gpu("NVIDIA H200", 2**30), Gpu("NVIDIA H200", 3 * 2**30)])
    monkeypatch.setattr(stepper, "operations", lambda lowered, parts: 3e9)
    summary, _ = go(tmp_path, steps=4)
    row = rows_of(tmp_path)[-1]
    assert row["peak_memory_bytes"] == summary["peak_memory_bytes"] == 3 * 2**30
    assert row["peak_share"] == summary["peak_share"]
    per_second = row["examples_per_second"] / 64
    assert row["peak_share"] == pytest.approx(3e9 * per_second / 494e12, rel=1e-9)  # an H200 does 494e12 in tf32


def test_operations_of_a_product(rng: np.random.Generator) -> None:
    m, k, n = (int(size) for size in rng.integers(8, 64, 3))
    lowered = jax.jit(jax.numpy.matmul).lower(np.ones((m, k), np.float32), np.ones((k, n), np.float32))
    assert device_use.operations(lowered, 1) == 2 * m * k * n


def test_an_unknown_gpu_has_memory_and_no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_use, "devices", lambda: [Gpu("NVIDIA H9000", 5)])
    assert device_use.DeviceUse("float32").figures(None, 1, 1.0) == {"peak_memory_bytes": 5}


# -- NaNs and the console ------------------------------------------------------------------------------------------------


def test_debug_nans_names_operation_and_step(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    dataset = data.load("digits")
    spoiled = ShuffledBatches(dataset.train, SMALL.batch_size, SMALL.seed)[4]["image"][5]
    images = dataset.train.arrays["image"]
    images[(images == spoiled).all((1, 2, 3))] = np.nan  # one example, first met in the fifth batch
    monkeypatch.setattr(data, "load", lambda *_, **__: dataset)
    where = ["--workdir", str(tmp_path), "--batch-size", "64", "--steps", "6", "--checkpoint-every", "0.125"]
    assert command(train.main, ["lenet5", *where, "--debug-nans", "--log-level", "error"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: debug_nans: NaN in ")
    assert " at step 5 (" in said.err
    assert ".py, line " in said.err
    assert said.err.endswith("; the last good checkpoint is of step 3\n")
    assert said.err.count("\n") == 1
    assert not jax.config.jax_debug_nans  # type: ignore[attr-defined]


def test_log_levels(capsys: pytest.CaptureFixture[str]) -> None:
    for level, shown in (("debug", 3), ("info", 2), ("warning", 1), ("error", 0)):
        console = Console(file=io.StringIO())
        say = messages.Messages(console, level)
        say.debug("a")
        say.info("b")
        say.warning("c")
        say.console.print("d")
        assert console.file.getvalue().splitlines() == ["a", "b", "warning: c"][3 - shown :] + ["d"] * (shown > 1)  # type: ignore[attr-defined]
        with messages.of_libraries(level):
            warnings.warn("old", DeprecationWarning, stacklevel=1)
            logging.getLogger("library").warning("odd")
        said = capsys.readouterr().err
        assert ("old" in said, "odd" in said) == (level == "debug", level == "debug")


# -- trackers ------------------------------------------------------------------------------------------------------------

MINE = """
import pathlib, sys, threading
calls = []
class Good:
    def start(self, config): calls.append(("start", config))
    def log(self, step, values): calls.append(("log", step, values))
    def images(self, step, images): calls.append(("images", step, images))
    def finish(self, summary): calls.append(("finish", summary))
class Fails(Good):
    def start(self, config): pass
    def log(self, step, values): raise RuntimeError("no network")
class Exits(Fails):
    def log(self, step, values): sys.exit(3)
class Hangs(Fails):
    def start(self, config): threading.Event().wait()
class NotMade(Good):
    def __init__(self): raise OSError("no login")
class Lacks:
    def start(self, config): pass
"""


@pytest.fixture
def mine(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    import mine  # type: ignore[import-not-found]

    yield mine
    sys.modules.pop("mine")


def test_trackers_get_everything_and_stop_nothing(
    mine: Any, plain: tuple, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "FINISH_SECONDS", 2.0)
    spec = ",".join(f"mine:{name}" for name in ("Good", "Fails", "Exits", "Hangs", "NotMade"))
    summary, said = go(tmp_path / "run", steps=12, tracker=spec)
    assert summary["parameters_sha256"] == plain[1]["parameters_sha256"]
    assert not (tmp_path / "run" / "tensorboard").exists()
    (kind, config), *logged, (last, given) = mine.calls
    assert (kind, last, given) == ("start", "finish", summary)
    assert (config["recipe"]["model"], config["workdir"], config["step"]) == ("lenet5", str(tmp_path / "run"), 0)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    expected = [{f"{r['split']}/{name}": r[name] for name in r if name not in ("step", "split")} for r in rows]
    assert logged == [("log", row["step"], values) for row, values in zip(rows, expected, strict=True)]
    for words in (
        "mine:Fails failed and is left alone (RuntimeError in log: no network)",
        "mine:Exits failed and is left alone (SystemExit in log: 3)",
        "mine:Hangs has not finished",
        "mine:NotMade failed and is left alone (OSError in its constructor: no login)",
    ):
        assert said.count(words) == 1


def test_a_tracker_that_is_too_slow_loses_records(mine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "MOST_WAITING", 10)
    said: list[str] = []
    slow = trackers.Apart("mine:Hangs", mine.Hangs, said.append)
    slow.start({})
    for step in range(50):
        slow.log(step, {})
    slow.wait(0.0)
    assert any("was too slow, " in line and "records were left out" in line for line in said)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tensorbord", "tracker: 'tensorbord' given, tensorboard, none or MODULE:CLASS is needed"),
        ("mine:Lacks", "tracker: mine:Lacks has no log or images or finish; a tracker has start, log, images, finish"),
        ("mine:Nobody", "tracker: mine has no function Nobody"),
        ("tensorboard,tensorboard", "tracker: tensorboard given twice"),
        ("none,tensorboard", "tracker: 'none' given"),
        ("", "tracker: '' given"),
    ],
)
def test_wrong_trackers_are_refused_before_anything(spec: str, message: str, mine: Any, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        go(tmp_path / "run", tracker=spec)
    assert not (tmp_path / "run").exists()


def test_pictures_reach_tensorboard(tmp_path: pathlib.Path, rng: np.random.Generator) -> None:
    from PIL import Image

    Image.fromarray(rng.integers(0, 256, (5, 7), np.uint8)).save(tmp_path / "a.png")
    board = trackers.TensorBoard()
    board.start({"workdir": str(tmp_path), "step": 0})
    board.images(3, {"samples": tmp_path / "a.png"})
    board.finish(None)
    (events,) = (tmp_path / "tensorboard").glob("events.*")
    assert (tmp_path / "a.png").read_bytes() in events.read_bytes()


def test_the_tracker_of_the_page_gets_all(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (pathlib.Path(__file__).parents[2] / "docs" / "training.md").read_text()
    code = page.split("```python\n# wandb_tracker.py\n")[1].split("```")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 14, "ten lines and four of imports and class"
    (tmp_path / "wandb_tracker.py").write_text(code)
    logged: list[Any] = []
    finished: dict[str, Any] = {}
    run = types.SimpleNamespace(
        log=lambda values, step: logged.append((step, values)), summary=finished, finish=lambda: logged.append("finished")
    )
    stand_in = types.SimpleNamespace(init=lambda **_: run, Image=lambda path: ("image", path))
    monkeypatch.setitem(sys.modules, "wandb", stand_in)  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    summary, said = go(tmp_path / "run", steps=3, tracker="tensorboard,wandb_tracker:Wandb")
    sys.modules.pop("wandb_tracker")
    assert "left alone" not in said
    assert logged[-1] == "finished"
    assert [step for step, _ in logged[:-1]] == [1, 2, 3, 3]
    assert finished == summary
