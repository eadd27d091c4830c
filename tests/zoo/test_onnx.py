"""Models as ONNX files, run by onnxruntime: `make test-onnx`, in an environment of its own (see the extra "onnx")."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
from flax import nnx

import zoo
from zoo.models.resnet import BasicBlock

pytestmark = pytest.mark.onnx


def small_resnet() -> nnx.Module:
    """Convolutions, batch norm with moved statistics, a shortcut, pooling."""
    model = zoo.ResNet(BasicBlock, (1, 1), widths=(4, 8), cifar=True, num_classes=5, rngs=nnx.Rngs(0))
    model(np.random.default_rng(1).normal(size=(2, 17, 16, 3)).astype(np.float32))
    return model


MODELS = {
    "lenet5": (lambda: zoo.create_model("lenet5", rngs=nnx.Rngs(0)), (32, 32, 1)),
    "resnet": (small_resnet, (17, 16, 3)),
    "lstm_classifier": (lambda: zoo.create_model("lstm_classifier", hidden_size=8, rngs=nnx.Rngs(0)), (5, 32)),
}


@pytest.mark.parametrize("name", MODELS)
def test_onnxruntime_gives_the_same(name: str, tmp_path: pathlib.Path, rng: np.random.Generator) -> None:
    import onnxruntime

    build, shape = MODELS[name]
    model = build()
    zoo.export_onnx(model, tmp_path / "model.onnx", input_shape=shape)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (argument,) = session.get_inputs()
    for batch in (1, 3):
        x = rng.normal(size=(batch, *shape)).astype(np.float32)
        (logits,) = session.run(None, {argument.name: x})
        # float32 sums in another order.
        np.testing.assert_allclose(logits, zoo.evaluation_view(model)(x), rtol=1e-5, atol=1e-5)
    assert {p.name for p in tmp_path.iterdir()} == {"model.onnx"}
