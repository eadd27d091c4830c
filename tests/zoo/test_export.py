"""Exported models run in a process that has jax alone, with any batch size."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from flax import nnx
from jax import export

import zoo
from zoo.models.resnet import BasicBlock

# Hides the zoo and what it stands on, then runs the file.
ELSEWHERE = """
import sys
for name in ("zoo", "kernels", "flax"):
    sys.modules[name] = None
import numpy as np
from jax import export
folder = sys.argv[1]
program = export.deserialize(bytearray(open(folder + "/model.jax", "rb").read()))
for count in (1, 3):
    np.save(f"{folder}/logits{count}.npy", program.call(np.load(folder + "/images.npy")[:count]))
"""


def test_reloaded_elsewhere(tmp_path: pathlib.Path, rng: np.random.Generator) -> None:
    model = zoo.ResNet(BasicBlock, (1, 1), widths=(8, 16), cifar=True, num_classes=5, rngs=nnx.Rngs(0))
    images = rng.normal(size=(3, 17, 16, 3)).astype(np.float32)
    model(images)  # moves the running statistics
    np.save(tmp_path / "images.npy", images)
    zoo.export_model(model, tmp_path / "model.jax", input_shape=(17, 16, 3))
    subprocess.run([sys.executable, "-c", ELSEWHERE, str(tmp_path)], check=True, timeout=120, cwd=tmp_path)
    expected = zoo.evaluation_view(model)(images)
    for count in (1, 3):
        # Compiled as a whole and operator by operator: float32 sums in another order, of logits below one, a few roundings.
        np.testing.assert_allclose(np.load(tmp_path / f"logits{count}.npy"), expected[:count], rtol=0, atol=1e-6)
    program = export.deserialize(bytearray((tmp_path / "model.jax").read_bytes()))
    assert program.platforms == ("cpu", "cuda")
    assert "rsqrt" not in program.mlir_module()  # batch norms are part of the convolutions
    assert {p.name for p in tmp_path.iterdir()} == {"images.npy", "model.jax", "logits1.npy", "logits3.npy"}


def test_registry_gives_the_input_shape(tmp_path: pathlib.Path) -> None:
    zoo.export_model(zoo.create_model("lenet5", in_channels=3), tmp_path / "model.jax", platforms=("cuda",))
    program = export.deserialize(bytearray((tmp_path / "model.jax").read_bytes()))
    assert str(program.in_avals[0].shape) == "(batch, 32, 32, 3)"
    assert program.platforms == ("cuda",)


@pytest.mark.parametrize("name", ["gru_lm", "lstm_classifier", "bilstm_tagger"])
def test_recurrent_models_take_any_batch(name: str, tmp_path: pathlib.Path, rng: np.random.Generator) -> None:
    model = zoo.create_model(name, hidden_size=8, rngs=nnx.Rngs(0))
    shape = (7, 32) if name == "lstm_classifier" else (7,)
    zoo.export_model(model, tmp_path / "model.jax", input_shape=shape)
    program = export.deserialize(bytearray((tmp_path / "model.jax").read_bytes()))
    for batch in (1, 3):
        draw = rng.normal(size=(batch, *shape)).astype(np.float32)
        x = draw if name == "lstm_classifier" else np.abs(draw * 20).astype(np.int32)
        # Compiled as a whole and operator by operator: float32 sums in another order, of outputs about one, a few roundings.
        np.testing.assert_allclose(program.call(x), zoo.evaluation_view(model)(x), rtol=0, atol=1e-6)


def test_bad_arguments(tmp_path: pathlib.Path) -> None:
    model = zoo.create_model("lenet5")
    with pytest.raises(ValueError, match=r"platforms: .'gpu',. given"):
        zoo.export_model(model, tmp_path / "m", platforms=("gpu",))
    with pytest.raises(ValueError, match="x: shape"):
        zoo.export_model(model, tmp_path / "m", input_shape=(31, 32, 1))
    with pytest.raises(ValueError, match="input_shape: needed"):
        zoo.export_model(zoo.LeNet5(rngs=nnx.Rngs(0)), tmp_path / "m")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("module", "extra", "function"), [("flatbuffers", "export", "export_model"), ("jax2onnx", "onnx", "export_onnx")]
)
def test_a_missing_package_names_its_extra(
    module: str, extra: str, function: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # which makes an import of it fail
    with pytest.raises(
        ModuleNotFoundError, match=rf'{module} is needed, which is not installed: pip install "jax-kernel-zoo\[{extra}\]"'
    ):
        getattr(zoo, function)(zoo.create_model("lenet5"), tmp_path / "m")
