"""Weights evaluated on an own folder of images: the data given, names of any kind, unreadable images, the pictures."""

from __future__ import annotations

import io
import json
import pathlib
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import zoo
from experiments import evaluate
from experiments.errors import run
from experiments.measuring import names
from experiments.training import progress, recipe_data, run_files
from experiments.training.loop import train

# Folder names that mathematics, markup, emoji or fonts without the letters would spoil.
NAMES = ("$x_1$ $y", "[bold]x [x]", "猫 犬", ":smile:", "a\tb")


def colour(label: int, number: int) -> tuple[int, int, int]:
    return 40 * label + 20, 200 - 30 * label, 25 * number


@pytest.fixture
def photographs(tmp_path: pathlib.Path) -> pathlib.Path:
    """Five classes of five images of one colour each."""
    root = tmp_path / "[photos] $1$"
    for label, name in enumerate(sorted(NAMES)):
        (root / name).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (40, 40), colour(label, number)).save(root / name / f"{number}.png")
    return root


def weights(path: pathlib.Path, num_classes: int = 5) -> pathlib.Path:
    model = zoo.create_model("lenet5", num_classes=num_classes, in_channels=3)
    model.fc3.kernel[...] = jnp.zeros_like(model.fc3.kernel[...])
    model.fc3.bias[...] = jnp.arange(num_classes, dtype=jnp.float32)  # always the last class
    zoo.save_weights(model, path)
    return path


def arguments(file: pathlib.Path, root: pathlib.Path) -> list[str]:
    return [str(file), "--model", "lenet5", "--data", f"imagefolder:{root}"]


def test_the_data_given_is_used_and_every_name_is_printed_and_drawn(
    photographs: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    drawn: dict = {}
    draw = evaluate.draw_mistakes
    monkeypatch.setattr(evaluate, "draw_mistakes", lambda *given: drawn.update(given=given) or draw(*given))
    assert run(evaluate.main, arguments(weights(tmp_path / "m.safetensors"), photographs)) == 0
    out = capsys.readouterr().out
    assert f"lenet5 on the test part of imagefolder:{photographs}: " in out
    assert "accuracy 20.00%" in out  # one image of each class, all taken for the last
    for name in ("$x_1$ $y", "[bold]x [x]", "猫 犬", ":smile:", r"a\tb"):
        assert name in out
    assert {"confusion.png", "mistakes.png", "evaluation.json"} <= {path.name for path in tmp_path.iterdir()}
    images, captions, _ = drawn["given"]
    assert len(captions) == 4
    classes = sorted(NAMES)
    for image, (name, taken, _) in zip(images, captions, strict=True):
        assert taken == classes[-1]
        red, green, _ = np.round(image[16, 16] * 255)  # the colours of the file, not normalized ones
        assert (red, green) == colour(classes.index(name), 0)[:2]


def test_a_head_of_another_size_is_refused(
    photographs: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = weights(tmp_path / "m.safetensors", num_classes=7)
    assert run(evaluate.main, arguments(file, photographs)) == 2
    printed = capsys.readouterr()
    assert f"error: --data: imagefolder:{photographs} has 5 classes, {file} was trained for others" in printed.err
    assert "accuracy" not in printed.out
    assert not (tmp_path / "evaluation.json").exists()


def test_classes_of_other_names_are_refused(
    photographs: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As many classes as the data have, in the file's words; the same names, in this order, are evaluated."""
    model = zoo.create_model("lenet5", num_classes=5, in_channels=3)
    names_there = sorted(NAMES)
    for classes, status in ((names_there, 0), ([*names_there[:3], *names_there[:2:-1]], 2)):
        folder = tmp_path / str(status)
        zoo.save_model(model, folder, classes=classes)
        assert run(evaluate.main, arguments(folder / "model.safetensors", photographs)) == status
    message = capsys.readouterr().err
    assert f"error: --data: class 3 of imagefolder:{photographs} is {names.printable(names_there[3])}, of {folder}" in message
    assert message.endswith(f" {names.printable(names_there[4])}\n")


def test_unreadable_images_are_named_and_mistakes_show_what_their_captions_name(
    photographs: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = sorted(NAMES)
    dataset = recipe_data.load(
        evaluate.recipe_for("lenet5", str(weights(tmp_path / "m.safetensors")), f"imagefolder:{photographs}")
    )
    assert dataset.input_shape == (32, 32, 3)
    bad = dataset.test.files[1]
    bad.write_bytes(b"no picture")
    spoiled = dataset.train.files[0]
    spoiled.write_bytes(b"no picture")
    drawn: list = []
    monkeypatch.setattr(evaluate, "draw_mistakes", lambda images, captions, path: drawn.extend([images, captions]))
    given = arguments(weights(tmp_path / "m.safetensors"), photographs)
    assert run(evaluate.main, given) == 2
    assert f"{bad}: cannot be read as an image" in capsys.readouterr().err
    assert run(evaluate.main, [*given, "--data-options", "skip_corrupt=True"]) == 0
    out = capsys.readouterr().out
    assert f"skip_corrupt: 1 image could not be read and was left out: {names.printable(str(bad))}" in out
    assert "accuracy 25.00%" in out
    assert json.loads((tmp_path / "evaluation.json").read_text())["skipped"] == [str(bad)]
    images, captions = drawn
    assert [name for name, _, _ in captions] == [classes[0], *classes[2:4]]
    for image, (name, _, _) in zip(images, captions, strict=True):
        assert tuple(np.round(image[0, 0, :2] * 255)) == colour(classes.index(name), 0)[:2]


def test_what_weights_change_in_the_model_is_evaluated() -> None:
    """As torchvision's do with the range of GoogLeNet's input."""
    opened = evaluate.build(evaluate.Recipe("lenet5", "digits"))
    loaded = opened.task.model(opened.stepper.state)
    loaded.transform_input = True
    assert opened.task.model(opened.task.with_model(opened.stepper.state, loaded)).transform_input is True


def test_names_on_pictures(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    shown, how = names.drawable([*NAMES, "ü é", "\udcff", "x\n"])
    assert shown[:2] == [*NAMES[:2]]
    assert shown[5:] == ["ü é", r"\udcff", r"x\n"]
    figure = Figure()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.subplots().set_title(" ".join(shown), **how)
        figure.savefig(tmp_path / "a.png")
    # No font with the letters: written out. One that has them: used.
    monkeypatch.setattr(names, "_other_fonts", lambda: iter([]))
    assert names.drawable(["猫x"])[0] == [r"\u732bx"]
    monkeypatch.setattr(names, "_other_fonts", lambda: iter([("Noto Sans", {1}), ("Noto Sans CJK JP", {ord("猫")})]))
    assert names.drawable(["猫x"]) == (["猫x"], {"fontfamily": ["sans-serif", "Noto Sans CJK JP"], "parse_math": False})


def test_a_run_on_such_a_folder_says_its_name(tmp_path: pathlib.Path) -> None:
    out = io.StringIO()
    console = Console(file=out, width=120)
    progress.print_summary(console, {"data": "imagefolder:/a/[b] $x$ :smile:", "skipped": ["x"]}, "Finished")
    assert "imagefolder:/a/[b] $x$ :smile:" in out.getvalue()
    assert "skipped" not in out.getvalue()
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "split": "test", "loss": 1.0}) + "\n")
    run_files.draw_curves(tmp_path, "lenet5 on imagefolder:/a/$x_ 猫")
    assert (tmp_path / "curves.png").exists()


def test_a_run_says_what_it_could_not_read(photographs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    bad = sorted((photographs / "[bold]x [x]").iterdir())[0]
    bad.write_bytes(b"no picture")
    recipe = evaluate.Recipe(
        "lenet5", f"imagefolder:{photographs}", batch_size=10, steps=2, data_options="size=32,skip_corrupt=True",
        workdir=str(tmp_path / "run"),
    )  # fmt: skip
    out = io.StringIO()
    summary = train(recipe, Console(file=out, emoji=False))
    assert summary["skipped"] == [str(bad)]
    assert f"skip_corrupt: 1 image could not be read and was left out: {bad}\n" in out.getvalue()


def test_many_unreadable_images_are_counted() -> None:
    line = run_files.skipped_line([f"{number}.png" for number in range(25)])
    assert line.startswith("skip_corrupt: 25 images could not be read and were left out: 0.png, 1.png, ")
    assert line.endswith("19.png and 5 more")
