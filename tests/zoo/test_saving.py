"""A model into a folder and out of one: whole, with all that is known of it, and by nobody's code."""

from __future__ import annotations

import json
import logging
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from flax import nnx

import zoo
from zoo import model_card
from zoo.options import options_from_json
from zoo.weights import WeightsFileError, torch_arrays

GREY = zoo.Preprocessing((32, 32), (32, 32), mean=(0.0,), std=(1.0,), value_range=(1.0, -1.0))
FIGURES = {"test accuracy": 0.75, "epochs": 3}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """LeNet-5 with five classes, of which create_model knew nothing."""
    folder = tmp_path_factory.mktemp("saved") / "lenet"
    model: Any = zoo.create_model("lenet5", rngs=3)
    model.reset_classifier(5, rngs=nnx.Rngs(4))
    zoo.save_model(model, folder, classes=list("abcde"), preprocessing=GREY, data="five|letters", figures=FIGURES)
    return folder


def header(file: pathlib.Path) -> dict[str, Any]:
    with safetensors.safe_open(file, "numpy") as opened:
        return json.loads(opened.metadata()["jax-kernel-zoo"])


def test_out_of_the_folder_as_it_went_in(saved: pathlib.Path, rng: np.random.Generator) -> None:
    assert {p.name for p in saved.iterdir()} == {"model.safetensors", "README.md"}
    assert header(saved / "model.safetensors") == {
        "model": "lenet5",
        "options": {"num_classes": 5},
        "classes": list("abcde"),
        "preprocessing": json.loads(json.dumps(GREY.as_dict())),
        "data": "five|letters",
        "figures": FIGURES,
    }
    image = rng.integers(0, 256, (20, 20), np.uint8)
    written = safetensors.numpy.load_file(saved / "model.safetensors")
    for source in (saved, str(saved / "model.safetensors")):
        model = zoo.load_model(source)
        info = zoo.weights_info(model)
        assert (info.classes, info.preprocessing, dict(info.figures)) == (tuple("abcde"), GREY, FIGURES)
        assert info.source == str(saved / "model.safetensors")
        assert {name: array.tolist() for name, array in torch_arrays(model).items()} == {
            name: array.tolist() for name, array in written.items()
        }
        # The image as it says: 20 x 20 to 32 x 32, white -1 and black 1.
        expected = jax.nn.softmax(model(zoo.preprocess(model, image)))[0]  # type: ignore[operator]
        found = {p.name: p.probability for p in zoo.predict(model, image)}
        np.testing.assert_allclose([found[name] for name in "abcde"], expected, rtol=1e-5)  # jitted or not


def test_what_is_known_goes_along(saved: pathlib.Path, tmp_path: pathlib.Path) -> None:
    model: Any = zoo.load_model(saved)
    zoo.save_model(model, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == (saved / "model.safetensors").read_bytes()
    model.reset_classifier(7, rngs=nnx.Rngs(0))
    zoo.save_model(model, tmp_path, data="", figures={})
    assert header(tmp_path / "model.safetensors").keys() == {"model", "options", "preprocessing"}  # no name fits seven classes


@pytest.mark.parametrize(
    ("name", "options", "written"),
    [
        ("resnet20_cifar", {"num_classes": 3, "in_channels": 1, "dropout": np.float64(0.5), "remat": {"layer1"}},
         {"num_classes": 3, "in_channels": 1, "dropout": 0.5, "remat": ["layer1"]}),
        ("lenet5_original", {"num_classes": 4, "dtype": jnp.bfloat16, "implementation": "xla"},
         {"num_classes": 4, "dtype": "bfloat16"}),
        ("lstm_lm", {"num_classes": 9, "hidden_size": 8, "dropout": 0.1, "param_dtype": np.float32, "dtype": jnp.float32},
         {"num_classes": 9, "hidden_size": 8, "dropout": 0.1}),
        ("bilstm_tagger", {"num_classes": 3, "vocab_size": 7, "hidden_size": 8, "bidirectional": True},
         {"num_classes": 3, "vocab_size": 7, "hidden_size": 8}),
        ("gan_mlp", {"num_classes": 3, "hidden": 8, "in_channels": 1, "spectral_norm": True},
         {"num_classes": 3, "hidden": 8, "spectral_norm": True}),
    ],
)  # fmt: skip
def test_each_family(
    name: str, options: dict[str, Any], written: dict[str, Any], tmp_path: pathlib.Path, rng: np.random.Generator
) -> None:
    model: Any = zoo.create_model(name, rngs=5, **options)
    path = zoo.save_model(model, tmp_path, vocabulary=list("abcdefghi") if name == "lstm_lm" else None)
    assert header(path)["options"] == written
    loaded: Any = zoo.load_model(tmp_path)
    assert loaded.zoo_options == model.zoo_options
    for a, b in zip(torch_arrays(model).values(), torch_arrays(loaded).values(), strict=True):
        np.testing.assert_array_equal(a, b)
    for flag in ("deterministic", "use_running_average"):
        assert all(getattr(module, flag, True) for _, module in nnx.iter_modules(loaded))
    if name == "gan_mlp":
        inputs: tuple = (rng.standard_normal((2, 100), np.float32), jnp.array([0, 2]))
    elif name.endswith("lm"):
        inputs = (rng.integers(0, 7, (2, 6)),)
    else:
        return
    expected = zoo.evaluation_view(model)(*inputs)  # type: ignore[operator]
    np.testing.assert_array_equal(loaded(*inputs), expected)


def test_another_dtype_and_other_kernels(saved: pathlib.Path) -> None:
    model: Any = zoo.load_model(saved, dtype=jnp.bfloat16, implementation="xla")
    assert model(jnp.zeros((1, 32, 32, 1))).dtype == jnp.bfloat16
    assert model.implementation == "xla"


class Own(nnx.Module):
    pass


def test_what_no_file_could_build_again(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"^model: this Own was not made by zoo.create_model"):
        zoo.save_model(Own(), tmp_path)
    changed: Any = zoo.create_model("lenet5")
    changed.conv1, changed.fc3 = changed.conv2, changed.fc2
    with pytest.raises(ValueError, match=r"^model: not as zoo.create_model made it \(conv1.weight, "):
        zoo.save_model(changed, tmp_path)
    model = zoo.create_model("lenet5")
    for what, names, message in (
        ("classes", list("ab"), "2 names given, the model has 10 of them"),
        ("classes", "0123456789", "a list of texts is needed"),
        ("classes", range(10), "a list of texts is needed"),
        ("vocabulary", ["a"], "1 names given, the model has no of them"),
    ):
        with pytest.raises(ValueError, match=f"^{what}: .*{message}"):
            zoo.save_model(model, tmp_path, **{what: names})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, r"does not say what model it is of .* zoo.load_weights\("),
        ("{", "damaged"),
        ("[1]", "damaged"),
        ("[" * 100_000, "damaged"),
        ({"model": 5}, "damaged .*5 is no text"),
        ({"model": "lenet5", "classes": "0123456789"}, "damaged .*no list of texts"),
        ({"model": "lenet5", "code": "x"}, "damaged .*code not known"),
        ({"model": "lenet5", "preprocessing": {"resize_size": 3}}, "damaged .*resize_size given"),
        ({"model": "lenet6"}, "no model 'lenet6'; did you mean lenet5"),
        ({"model": "lenet5", "options": {"weights": "http://127.0.0.1:9/a.pth"}}, "weights is given, which a file may not"),
        ({"model": "lenet5", "options": {"dtype": "object"}}, "dtype is 'object', it is one of float32"),
        ({"model": "lenet5", "options": {"dtype": ["float32"]}}, r"dtype is \['float32'\], it is one of"),
        ({"model": "lenet5", "options": {"depth": 3}}, "unexpected keyword argument 'depth'"),
        ({"model": "lenet5", "options": {"num_classes": "five"}}, "num_classes: 'five' given"),
        ({"model": "lenet5", "options": {"num_classes": 10**9}}, "not the weights of this LeNet5; misshapen: fc3.weight"),
        ({"model": "lenet5", "options": {"num_classes": 10**30}}, "source: "),
        ({"model": "lenet5_original"}, "not the weights of this LeNet5Original; missing: "),
        ({"model": "lenet5", "classes": ["a"]}, "classes: 1 names given, the model has 10"),
    ],
)
def test_unknown_and_damaged_metadata(metadata: Any, message: str, tmp_path: pathlib.Path) -> None:
    text = metadata if isinstance(metadata, str | None) else json.dumps(metadata)
    arrays = torch_arrays(zoo.create_model("lenet5"))
    file = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(arrays, file, None if text is None else {"jax-kernel-zoo": text})
    with pytest.raises(ValueError, match=message) as caught:
        zoo.load_model(tmp_path)
    assert str(caught.value).startswith(f"source: {file}")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_none(tmp_path: pathlib.Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"no header")
    with pytest.raises(WeightsFileError, match=rf"^source: {tmp_path}/model.safetensors: damaged or no safetensors file"):
        zoo.load_model(tmp_path)
    (tmp_path / "empty").mkdir()
    for wrong, message in (
        (tmp_path / "empty", "empty holds no model.safetensors$"),
        (tmp_path / "nowhere", "nowhere does not exist; a folder, a .safetensors file or 'hf://owner/name'"),
        (7, "int given"),
    ):
        with pytest.raises(ValueError, match=f"^source: .*{message}"):
            zoo.load_model(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"empty holds neither model\.safetensors nor the checkpoints of a run"):
        zoo.load_weights(zoo.create_model("lenet5"), tmp_path / "empty")


def test_options_that_json_cannot_hold(tmp_path: pathlib.Path) -> None:
    model: Any = zoo.create_model("lenet5")
    model.zoo_options = json.dumps({"initializer": {"type": "function"}})
    with pytest.raises(ValueError, match="options: initializer is 'function', which no file can hold"):
        zoo.save_model(model, tmp_path)
    assert options_from_json('{"a": [1, [2, 3]]}') == {"a": (1, (2, 3))}


def test_the_card_says_it_and_an_edited_one_is_kept(
    saved: pathlib.Path, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = (saved / "README.md").read_text()
    for part in (
        "---\nlibrary_name: jax-kernel-zoo\npipeline_tag: image-classification\n",
        "# lenet5, trained on five\\|letters",
        "| test accuracy | 75.00% |",
        "Classes (5): a, b, c, d, e.",
        'import zoo  # the package jax-kernel-zoo\nmodel = zoo.load_model("path/to/this/folder")\nprint(zoo.predict(model,',
    ):
        assert part in text
    model = zoo.load_model(saved)
    zoo.save_model(model, tmp_path)
    zoo.save_model(model, tmp_path, figures={"test accuracy": 0.8})
    card = tmp_path / "README.md"
    assert "| 80.00% |" in card.read_text()
    assert not caplog.records
    card.write_text(card.read_text().replace("# lenet5", "# My LeNet"))
    with caplog.at_level(logging.WARNING):
        zoo.save_model(model, tmp_path, figures={"test accuracy": 0.9})
    assert "README.md was not written by zoo.save_model, or was edited, and is kept" in caplog.text
    assert "# My LeNet" in card.read_text()
    assert "| 80.00% |" in card.read_text()
    assert header(tmp_path / "model.safetensors")["figures"] == {"test accuracy": 0.9}


@pytest.mark.parametrize("name", zoo.list_models())
def test_every_model_has_a_card(name: str) -> None:
    info = zoo.weights.WeightsInfo(model=name, classes=("a\nb", "<b>", ""), vocabulary=tuple("abc") * 9)
    text = model_card.model_card(info)
    assert f"# {name}\n" in text
    assert 'Classes (3): a\\\\nb, \\<b\\>, "".' in text
    assert text.count("```") == 2
    assert "and 7 more." in text
