"""A trained run is a model: what it leaves, who can read it, and how it is made longer."""

from __future__ import annotations

import dataclasses
import io
import json
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import zoo
from experiments import data
from experiments.data.augment import Augmentation, image_data
from experiments.data.base import ArraySource
from experiments.errors import UserError
from experiments.recipes.recipe import Recipe
from experiments.training import run_files
from experiments.training.loop import StoppedError, train
from experiments.training.restore import load_run
from zoo.__main__ import main
from zoo.weights import WeightsFileError, torch_arrays

SMALL = Recipe(
    model="lenet5", data="digits", data_options="shift=0", batch_size=64, steps=4, evaluate_every=0.1, checkpoint_every=0.1,
    ema=0.5,
)  # fmt: skip


def run(workdir: pathlib.Path, **changes: Any) -> tuple[dict[str, Any], str]:
    """The summary, and what was printed."""
    shown = io.StringIO()
    return train(dataclasses.replace(SMALL, workdir=str(workdir), **changes), Console(file=shown, width=200)), shown.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("runs") / "lenet5-digits"
    run(workdir)
    return workdir


def test_a_run_is_a_model(finished: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    model: Any = zoo.load_model(finished)
    info, summary = zoo.weights_info(model), json.loads((finished / "summary.json").read_text())
    assert (info.model, info.classes, info.data) == ("lenet5", tuple("0123456789"), "digits")
    assert dict(info.figures) == {
        "test accuracy": summary["eval_accuracy"], "test loss": summary["eval_loss"], "epochs": summary["epochs"], "steps": 4,
    }  # fmt: skip
    # The weights that were evaluated, which are the averaged ones, on a picture of a test image.
    opened = load_run(finished)
    state = opened.stepper.state
    np.testing.assert_array_equal(model.conv1.kernel[...], state.ema["conv1"]["kernel"][...])
    image = opened.dataset.test.arrays["image"][5]
    picture = Image.fromarray(np.round(127.5 * (1 - image[..., 0])).astype(np.uint8))  # ink is dark
    picture.save(tmp_path / "digit.png")
    # A picture has 256 greys.
    np.testing.assert_allclose(zoo.preprocess(model, tmp_path / "digit.png")[0], image, atol=1 / 255 + 1e-6)
    logits = opened.task.model(state)(image[None])
    best = zoo.predict(model, tmp_path / "digit.png", k=1)[0]
    assert best.name == str(logits.argmax())
    assert best.probability == pytest.approx(float(jax.nn.softmax(logits).max()), abs=0.01)
    for source in (finished, finished / "model.safetensors"):
        assert main(["predict", str(source), str(tmp_path / "digit.png"), "-k", "1"]) == 0
        assert capsys.readouterr().out.startswith(f"{best.name}  {best.probability:>7.2%}")
    assert main(["predict", str(finished), "digit.png", "--weights", "w.pth"]) == 2
    assert capsys.readouterr().err == f"error: --weights: w.pth given, and {finished} has its own\n"


def test_weights_from_a_run_and_its_checkpoints(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    expected = torch_arrays(zoo.load_model(finished))
    unfinished = tmp_path / "run"
    shutil.copytree(finished / "checkpoints", unfinished / "checkpoints")
    for source in (finished, finished / "checkpoints", finished / "checkpoints" / "4", str(unfinished)):
        model = zoo.create_model("lenet5", rngs=9)
        assert len(zoo.load_weights(model, source).loaded) == 10
        for name, array in torch_arrays(model).items():
            np.testing.assert_array_equal(array, expected[name])
    zoo.load_weights(model, unfinished / "checkpoints" / "2")
    assert (torch_arrays(model)["fc3.bias"] != expected["fc3.bias"]).any()
    with pytest.raises(ValueError, match=r"run holds no model\.safetensors: a training run that has not finished; the command"):
        zoo.load_model(unfinished)
    damaged = max((unfinished / "checkpoints" / "4").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 0x55
    damaged.write_bytes(content)
    before = torch_arrays(model)
    with pytest.raises(WeightsFileError, match=r"^source: .*checkpoints/4: damaged, or no checkpoint of a run \("):
        zoo.load_weights(model, unfinished)
    assert all((before[name] == array).all() for name, array in torch_arrays(model).items())


def test_a_finished_run_is_made_longer(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    longer, whole = tmp_path / "longer", tmp_path / "whole"
    constant = {"schedule": "constant", "ema": None}
    run(longer, **constant)
    figures = zoo.weights_info(zoo.load_model(longer)).figures
    summary, shown = run(longer, steps=6, **constant)
    assert "continuing at step 4 of 6\nmade longer: 6 steps, 4 before\n" in shown
    at_once, _ = run(whole, steps=6, **constant)
    # Bit for bit: a constant learning rate does not depend on the end.
    assert summary["parameters_sha256"] == at_once["parameters_sha256"]
    assert summary["eval_loss"] == at_once["eval_loss"]
    assert (summary["steps"], json.loads((longer / "config.json").read_text())["recipe"]["steps"]) == (6, 6)
    assert json.loads((longer / "summary.json").read_text()) == summary
    rows = [json.loads(line) for line in (longer / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["split"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert (longer / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert zoo.weights_info(zoo.load_model(longer)).figures != figures
    assert "| steps | 6 |" in (longer / "README.md").read_text()

    with pytest.raises(
        UserError, match=r"^steps: 5 given \(5 steps\), the run in .* has done 6 steps; give as many or more, or"
    ):
        run(longer, steps=5, **constant)
    with pytest.raises(UserError, match=r"^epochs: 0.1 given \(2 steps\), the run in .* has done 6 steps"):
        run(longer, steps=None, epochs=0.1, **constant)
    assert json.loads((longer / "summary.json").read_text()) == summary
    # The same length by another name trains nothing.
    again, shown = run(longer, steps=None, epochs=6 / 22, **constant)
    assert "made longer" not in shown
    assert again["parameters_sha256"] == summary["parameters_sha256"]


@pytest.mark.slow
def test_a_schedule_that_ends_elsewhere_is_said(
    finished: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    _, shown = run(workdir, steps=8)
    # A cosine over eight steps is at half of its peak after four; over four it was at zero.
    line = "made longer: 8 steps, 4 before; the cosine schedule now ends at step 8: the learning rate continues at 0.0005"
    assert line in shown.splitlines()
    (workdir / "model.safetensors").unlink()
    _, shown = run(workdir, steps=8)  # a run that an earlier version finished gets its model
    assert "made longer" not in shown
    assert dict(zoo.weights_info(zoo.load_model(workdir)).figures)["steps"] == 8
    _, shown = run(workdir, steps=8)
    assert "Already finished" in shown

    # Interrupted while it is made longer: it is unfinished, and ends where it was told to.
    monkeypatch.setattr("experiments.training.loop.Interrupts.__enter__", _received)
    with pytest.raises(StoppedError):
        run(workdir, steps=12)
    monkeypatch.undo()
    assert not (workdir / "summary.json").exists()
    summary, shown = run(workdir, steps=10)
    assert "made shorter: 10 steps, 12 before; the cosine schedule" in shown
    assert summary["steps"] == 10


def _received(interrupts: Any) -> Any:
    interrupts.received = 15
    return interrupts


def test_starting_anew_takes_the_model_with_it(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    run_files.clear(workdir)
    assert not list(workdir.iterdir())
    (workdir / "README.md").write_text("mine\n")
    run_files.clear(workdir)
    assert [path.name for path in workdir.iterdir()] == ["README.md"]


@pytest.mark.parametrize("size", [(40, 56), (64, 50)])
def test_pictures_are_made_ready_as_the_test_data(size: tuple[int, int], tmp_path: pathlib.Path) -> None:
    # A smooth picture: its resizing by Pillow in one go (the data set) or as a whole before the crop (zoo) is all but the same.
    y, x = np.mgrid[: size[0], : size[1]]
    pixels = np.stack([3 * y, 255 - 3 * x, 2 * (x + y)], -1).clip(0, 255).astype(np.uint8)
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            Image.fromarray(pixels).save(tmp_path / part / name / "1.png")
    folder = data.load(f"imagefolder:{tmp_path}", size=28)
    batch = folder.preprocess(folder.test.gather(np.array([0]), None), jax.random.key(0), False)
    found = zoo.preprocess("resnet18", tmp_path / "val" / "cat" / "1.png", preprocessing=folder.preprocessing)
    # Half a pixel of rounding, 1.5 grey levels, over the least deviation.
    np.testing.assert_allclose(found, batch["image"], atol=3 / 255 / 0.224)

    raw = np.random.default_rng(0).integers(0, 256, (1, 6, 6, 1), np.uint8)
    source = ArraySource({"image": np.pad(raw, ((0, 0), (2, 2), (2, 2), (0, 0))), "label": np.zeros(1, np.int32)})
    padded = image_data("mnist", source, source, "01", (10, 10, 1), Augmentation(2, (0.1307,), (0.3081,)), (6, 6))
    batch = padded.preprocess(source.gather(np.array([0]), None), jax.random.key(0), False)
    found = zoo.preprocess("lenet5", raw[0], preprocessing=padded.preprocessing)
    np.testing.assert_allclose(found, batch["image"], atol=1e-6)
