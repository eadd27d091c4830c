"""Names and probabilities of an image, beside torchvision's model with the same weights."""

from __future__ import annotations

import hashlib
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from experiments.peers.torch_vision import torch_model, torchvision_models
from zoo.__main__ import main
from zoo.weights.published import imagenet_classes

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def published(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """Torch's resnet18, and its weights in the cache under the name that torchvision would give them."""
    peer = torch_model("resnet18").eval()
    (tmp_path / "torchvision").mkdir()
    torch.save(peer.state_dict(), tmp_path / "w.pth")
    digest = hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()
    name = f"resnet18-{digest[:8]}"
    (tmp_path / "w.pth").rename(tmp_path / "torchvision" / f"{name}.pth")
    monkeypatch.setitem(zoo.weights.published._FILES, "resnet18", (name, None))
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    return peer


def expected(peer: torch.nn.Module, picture: Image.Image) -> np.ndarray:
    images = torchvision_models().ResNet18_Weights.DEFAULT.transforms()(picture)[None]
    with torch.no_grad():
        return peer(images).softmax(-1)[0].numpy()


def test_beside_torchvision(
    published: torch.nn.Module, tmp_path: pathlib.Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = [Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)) for size in ((241, 307), (300, 231))]
    model = zoo.create_model("resnet18", weights="torchvision://resnet18")
    assert zoo.weights_info(model).classes == imagenet_classes()
    for picture, found in zip(pictures, zoo.predict(model, pictures, k=1000), strict=True):
        rows = expected(published, picture)
        # Probabilities of logits that are equal up to 1e-5.
        np.testing.assert_allclose([p.probability for p in found], np.sort(rows)[::-1], rtol=1e-3, atol=1e-6)
        names = torchvision_models().ResNet18_Weights.DEFAULT.meta["categories"]
        assert found[0].name == names[rows.argmax()]
    assert [len(zoo.predict(model, pictures[0], k)) for k in (1, np.int64(3))] == [1, 3]

    pictures[0].save(tmp_path / "photo.png")
    file = next((tmp_path / "torchvision").iterdir())
    for weights in ("torchvision://resnet18", str(file)):
        assert main(["predict", "resnet18", str(tmp_path / "photo.png"), "--weights", weights, "-k", "2"]) == 0
        lines = capsys.readouterr().out.splitlines()
        first = zoo.predict(model, pictures[0])[0]
        assert len(lines) == 2
        assert lines[0].startswith(f"{first.name} ")
        assert f"{first.probability:.2%}" in lines[0]
        assert lines[0].count("█") == round(30 * first.probability)


def test_names_that_are_not_known(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = zoo.Preprocessing((32, 32), (32, 32), mean=(0.0,), std=(1.0,))
    image, model = np.zeros((9, 9), np.uint8), zoo.create_model("lenet5", rngs=3)
    assert {p.name for p in zoo.predict(model, image, 10, preprocessing=settings)} == set("0123456789")
    named = zoo.predict(model, image, 10, preprocessing=settings, classes="abcdefghij")
    assert sum(p.probability for p in named) == pytest.approx(1, abs=1e-5)
    assert {p.name for p in named} == set("abcdefghij")
    with pytest.raises(ValueError, match="classes: 3 names given, the model has 10 outputs"):
        zoo.predict(model, image, preprocessing=settings, classes="abc")
    for k in (0, True, 2.5):
        with pytest.raises(ValueError, match=f"k: {k} given, a whole number of at least 1"):
            zoo.predict(model, image, k)
    with pytest.raises(ValueError, match="nothing says how images are made ready for this lstm_lm"):
        zoo.predict(zoo.create_model("lstm_lm"), image)


def test_training_mode_is_left_as_it_is(rng: np.random.Generator) -> None:
    model = zoo.create_model("resnet20_cifar", rngs=1)
    settings = zoo.Preprocessing((32, 32), (32, 32))
    before = zoo.to_torch_state_dict(model)
    zoo.predict(model, rng.integers(0, 256, (40, 50, 3), np.uint8), preprocessing=settings)
    assert all((before[name] == value).all() for name, value in zoo.to_torch_state_dict(model).items())
    assert not model.bn1.use_running_average


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet18", "a.png"], "--weights: needed, since resnet18 without is untrained; torchvision://resnet18 is published"),
        (["lenet5", "a.png"], "--weights: needed, since lenet5 without is untrained\n"),
        (["resnet19", "a.png", "--weights", "w.pth"], "did you mean resnet18"),
        (["lenet5", "a.png", "--weights", "w.pth"], "w.pth"),
        (["lenet5", "a.png", "--weights", "w.pth", "--classes", "none.txt"], "--classes: none.txt given, 'imagenet' or a file"),
    ],
)  # fmt: skip
def test_one_line_errors(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_without_pillow() -> None:
    code = (
        "import sys; sys.modules['PIL'] = None\n"
        "import numpy, zoo\n"
        "try: zoo.preprocess('resnet18', numpy.zeros((4, 4), 'uint8'))\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert 'pip install "jax-kernel-zoo[images]"' in shown
