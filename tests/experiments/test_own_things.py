"""Recipes, models and data sets of one's own: those of docs/training.md run as they stand there."""

from __future__ import annotations

import json
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from flax import nnx

import zoo
from experiments import data, own, recipes
from experiments.errors import UserError
from experiments.errors import run as command
from experiments.train import main
from zoo import registry

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "training.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with the files of the page."""
    root = tmp_path_factory.mktemp("own")
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert {name for name, _ in blocks} == {"recipe.py", "mymodel.py", "registered.py", "mydata.py", "wandb_tracker.py"}
    for name, code in blocks:
        (root / name).write_text(code)
    return root


@pytest.fixture(autouse=True)
def here(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    yield
    for name in ("mymodel", "registered", "mydata", "broken"):
        sys.modules.pop(name, None)
    registry._models.pop("wide_lenet", None)


def figures(workdir: str) -> dict[str, Any]:
    return json.loads(pathlib.Path(workdir, "summary.json").read_text())


def test_a_recipe_with_a_model_and_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(main, ["recipe.py", "--workdir", "runs/recipe", "--epochs", "2"]) == 0, capsys.readouterr().err
    summary = figures("runs/recipe")
    assert (summary["model"], summary["data"], summary["epochs"]) == ("mymodel:tiny", "mydata:stripes", 2)
    assert summary["eval_accuracy"] > 0.8
    # Its values are read by a model that was made by hand; how to make one a file cannot say.
    model = own.create_model("mymodel:tiny", num_classes=2, rngs=nnx.Rngs(7))
    zoo.load_weights(model, "runs/recipe")
    rows = data.load("mydata:stripes").test.arrays
    right = np.mean(np.argmax(model(rows["image"]), -1) == rows["label"])  # type: ignore[operator]
    assert right == pytest.approx(summary["eval_accuracy"])
    with pytest.raises(ValueError, match=r"does not say what model"):
        zoo.load_model("runs/recipe")
    from experiments.evaluate import main as evaluate

    assert command(evaluate, ["runs/recipe"]) == 2
    assert "names code to run (model mymodel:tiny, data mydata:stripes); --trust runs it" in capsys.readouterr().err
    assert command(evaluate, ["runs/recipe", "--trust"]) == 0
    assert "mymodel:tiny on the test part of mydata:stripes" in capsys.readouterr().out


def test_a_registered_model(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["registered:wide_lenet", "--data", "mydata:stripes", "--steps", "2", "--workdir", "runs/registered"]
    assert command(main, given) == 0, capsys.readouterr().err
    assert "wide_lenet" in zoo.list_models()
    info = zoo.model_info("wide_lenet")
    assert (info.family, info.params, info.input_shape) == ("registered", 0, (32, 32, 1))
    model: Any = zoo.load_model("runs/registered")
    assert (model.zoo_name, zoo.weights_info(model).classes) == ("wide_lenet", ("plain", "striped"))
    registry._models.pop("wide_lenet")
    with pytest.raises(ValueError, match="no model 'wide_lenet'"):
        zoo.load_model("runs/registered")


def test_options_of_own_data() -> None:
    assert data.load("mydata:stripes", size=8).input_shape == (8, 8, 1)
    with pytest.raises(UserError, match=r"data_options: size: 2.5 given, a whole number is needed"):
        data.load("mydata:stripes", size=2.5)
    with pytest.raises(UserError, match=r"data: mydata:stripes takes no option colour"):
        data.load("mydata:stripes", colour=1)


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("", ["nowhere:tiny"], "model: nowhere:tiny given, but there is no module nowhere, here or installed"),
        ("", ["mymodel:big"], "model: mymodel has no function big"),
        ("1 / 0", ["broken:f"], "model: broken cannot be imported (ZeroDivisionError: division by zero)"),
        ("def f(*, num_classes, rngs): return 3", ["broken:f"], "model: broken:f returns int, an nnx.Module is needed"),
        ("def f(): return 3", ["lenet5", "--data", "broken:f"],
         "data: broken:f returns int, a Dataset of experiments.data is needed"),
        ("def f(): raise ValueError('no rows')", ["lenet5", "--data", "broken:f"], "data: broken:f: no rows"),
        ("", ["lenet5", "--data", "broken:g"], "data: broken has no function g"),
        ("", ["nowhere.py"], "recipe: nowhere.py does not exist"),
        ("x = 1", ["broken.py"], "recipe: broken.py has no RECIPE"),
        ("RECIPE = 3", ["broken.py"], "recipe: RECIPE of broken.py is a int, a Recipe of experiments.recipes.recipe is needed"),
        ("1 / 0", ["broken.py"], "recipe: broken.py cannot be run (ZeroDivisionError: division by zero)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(
    content: str, arguments: list[str], message: str, folder: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.py").write_text(content)
    assert command(main, [*arguments, "--workdir", "runs/wrong"]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not pathlib.Path("runs/wrong/config.json").exists()


def test_a_data_set_here_goes_before_a_module_of_its_name(folder: pathlib.Path) -> None:
    (folder / "text.py").write_text("")
    assert not data.is_own("text:song")
    assert data.is_own("mydata:stripes:path")
    assert recipes.find("resnet18", "cifar100:somewhere").optimizer == "sgd"
    assert recipes.find("resnet18", "mydata:stripes").optimizer == "adamw"


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match="input_shape: missing"):
        zoo.register("another")
    with pytest.raises(ValueError, match="'lenet5' is registered twice"):
        zoo.register("lenet5", input_shape=(1,))(lambda **_: None)
    assert recipes.find("resnet18").model == "resnet18"
