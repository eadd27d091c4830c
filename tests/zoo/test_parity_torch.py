"""Every torchvision name computes what torchvision computes.

Each test also shows that it can fail: another image changes what is compared by at least a hundred tolerances.
experiments/benchmarks/parity.py does the same at 224 x 224 and in training for each name; docs/models.md has its figures.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import zoo
from experiments.peers import torch_vision as peers

TORCHVISION = [name for name in zoo.list_models() if zoo.model_info(name).weights]


def images(rng: np.random.Generator, batch: int, size: int, channels: int = 3) -> np.ndarray:
    return rng.normal(size=(batch, size, size, channels)).astype(np.float32)


def test_every_name_is_there() -> None:
    models = peers.torchvision_models()
    known = models.list_models(module=models)
    families = ("alexnet", "vgg", "resne", "wide_resnet", "googlenet")
    assert sorted(name for name in known if name.startswith(families)) == TORCHVISION


TOLERANCE = 1e-5  # float32 sums of up to 25,088 products in another order


def assert_same(found: peers.Evaluation) -> None:
    assert found.error < TOLERANCE
    assert found.change > 100 * TOLERANCE


@pytest.mark.parametrize("name", TORCHVISION)
def test_evaluation(name: str, rng: np.random.Generator) -> None:
    size = {"a": 64, "v": 32}.get(name[0], 48)
    if name.startswith("vgg") and name not in ("vgg11_bn", "vgg16"):
        assert_same(peers.vgg_trunk_evaluation(name, images(rng, 2, 64)))
    else:
        assert_same(peers.evaluation(name, images(rng, 2, size)))


@pytest.mark.parametrize(
    ("name", "batch", "size", "channels"),
    [("resnet18", 1, 225, 3), ("resnet18", 1, 97, 4), ("resnet50", 2, 97, 1), ("alexnet", 1, 97, 4)],
)
def test_other_sizes_and_channels(name: str, batch: int, size: int, channels: int, rng: np.random.Generator) -> None:
    assert_same(peers.evaluation(name, images(rng, batch, size, channels)))


def test_googlenet_options(rng: np.random.Generator) -> None:
    x = images(rng, 1, 97)
    options = {"transform_input": True, "aux_logits": False, "num_classes": 7}
    assert_same(peers.evaluation("googlenet", x, **options))
    assert peers.evaluation("googlenet", x, {"transform_input": False}, **options).error > 100 * TOLERANCE


@pytest.mark.parametrize(
    ("name", "size", "dtype", "tolerance"),
    [
        ("alexnet", 64, np.float32, 1e-3),
        ("vgg11_bn", 32, np.float32, 1e-3),
        ("resnet18", 65, np.float32, 1e-3),
        ("resnet18", 65, np.float64, 1e-8),
        ("resnet50", 33, np.float64, 1e-8),
        pytest.param("googlenet", 64, np.float64, 1e-8, marks=pytest.mark.slow),
    ],
)
def test_training(name: str, size: int, dtype: type, tolerance: float, rng: np.random.Generator) -> None:
    # The deep networks are compared in float64: in float32 gradients of ours and of torch's alike are in some draws a tenth
    # away from float64's (experiments/benchmarks/float32_gradients.py counts how often).
    labels = rng.integers(0, 1000, 4).astype(np.int32)
    x = images(rng, 4, size)
    errors, changes = (compare(name, x, labels, dtype) for compare in (peers.training_errors, peers.training_changes))
    assert max(errors.values()) < tolerance, errors
    assert max(changes.values()) > 100 * tolerance, changes


def test_googlenet_in_training_returns_all_heads() -> None:
    model = nnx.eval_shape(lambda: zoo.create_model("googlenet", num_classes=5))
    shapes = nnx.eval_shape(lambda m, x: m(x), model, jnp.zeros((2, 64, 64, 3)))
    assert isinstance(shapes, zoo.GoogLeNetOutputs)
    assert [s.shape for s in shapes] == [(2, 5)] * 3
    plain = nnx.eval_shape(lambda m, x: m(x), zoo.evaluation_view(model), jnp.zeros((2, 64, 64, 3)))
    assert plain.shape == (2, 5)


class TorchLeNet(torch.nn.Module):
    """The modern LeNet-5, as every torch tutorial has it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = torch.nn.Conv2d(1, 6, 5), torch.nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = torch.nn.Linear(400, 120), torch.nn.Linear(120, 84), torch.nn.Linear(84, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        f = torch.nn.functional
        x = f.max_pool2d(f.relu(self.conv1(x)), 2)
        x = f.max_pool2d(f.relu(self.conv2(x)), 2)
        return self.fc3(f.relu(self.fc2(f.relu(self.fc1(x.flatten(1))))))


def test_lenet5(rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    peer, model = TorchLeNet(), zoo.create_model("lenet5")
    zoo.load_weights(model, peer.state_dict())
    x = images(rng, 3, 32, 1)
    with torch.no_grad():
        expected, other = (peer(peers.to_torch(images)).numpy() for images in (x, x[::-1]))
    assert np.abs(other - expected).max() > 1e-4
    # float32 sums of up to 400 products in another order.
    np.testing.assert_allclose(model(x), expected, atol=1e-6)
