"""Weights travel both ways, whole or not at all."""

from __future__ import annotations

import pathlib
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from flax import nnx

import zoo
from experiments.peers import torch_vision as peers
from zoo import registry
from zoo.layers import initializers
from zoo.weights import WeightsFileError, WeightsMismatchError, read_pth, torch_arrays


@pytest.fixture(scope="module")
def peer() -> torch.nn.Module:
    return peers.torch_model("resnet18", num_classes=12)


def abstract(name: str = "resnet18", **options) -> nnx.Module:
    return nnx.eval_shape(lambda: zoo.create_model(name, **{"num_classes": 12} | options))


def same(state: dict, other: dict) -> bool:
    return state.keys() == other.keys() and all(
        a.dtype == other[name].dtype and torch.equal(a, other[name]) for name, a in state.items()
    )


@pytest.mark.parametrize("kind", ["state_dict", "pth", "legacy", "checkpoint", "safetensors", "zoo"])
def test_round_trip_bit_for_bit(kind: str, peer: torch.nn.Module, tmp_path: pathlib.Path) -> None:
    state = peer.state_dict()
    first = abstract()
    if kind == "state_dict":
        source = state
    elif kind in ("safetensors", "zoo"):
        zoo.load_weights(first, state)
        source = tmp_path / "m.safetensors"
        zoo.save_weights(first, source, layout="torch" if kind == "safetensors" else "zoo")
    else:
        source = tmp_path / "m.pth"
        content = {"epoch": 3, "state_dict": state} if kind == "checkpoint" else state
        torch.save(content, source, _use_new_zipfile_serialization=kind != "legacy")
    model = abstract()
    report = zoo.load_weights(model, source)
    assert same(zoo.to_torch_state_dict(model), state)
    assert len(report.loaded) == len(state)
    assert not list(tmp_path.glob("*.part"))


def test_bfloat16_and_half_files(tmp_path: pathlib.Path) -> None:
    model = zoo.create_model("lenet5", param_dtype=jnp.bfloat16)
    zoo.save_weights(model, tmp_path / "m.safetensors")
    again = zoo.create_model("lenet5", param_dtype=jnp.bfloat16, rngs=1, weights=tmp_path / "m.safetensors")
    for name, value in torch_arrays(model).items():
        assert value.dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(torch_arrays(again)[name], value)
    torch.save(zoo.to_torch_state_dict(model), tmp_path / "m.pt")
    third = zoo.create_model("lenet5", param_dtype=jnp.bfloat16, rngs=2, weights=tmp_path / "m.pt")
    assert same(zoo.to_torch_state_dict(third), zoo.to_torch_state_dict(model))
    zoo.load_weights(third, {n: t.half() for n, t in zoo.to_torch_state_dict(model).items()})


def test_torch_reads_what_we_write(peer: torch.nn.Module, tmp_path: pathlib.Path) -> None:
    import safetensors.torch

    model = abstract()
    zoo.load_weights(model, peer.state_dict())
    zoo.save_weights(model, tmp_path / "m.safetensors")
    assert same(dict(peer.state_dict()), safetensors.torch.load_file(tmp_path / "m.safetensors"))
    fresh = peers.torch_model("resnet18", seed=1, num_classes=12)
    fresh.load_state_dict(zoo.to_torch_state_dict(model))
    assert same(dict(peer.state_dict()), dict(fresh.state_dict()))


def test_every_difference_in_one_error_and_nothing_loaded() -> None:
    model = zoo.create_model("lenet5")
    before = torch_arrays(model)
    state = {n: v + 1 for n, v in before.items()}
    del state["fc2.bias"]
    state["fc9.weight"] = np.zeros(3, np.float32)
    state["conv2.weight"] = np.zeros((16, 6, 3, 3), np.float32)
    state["fc1.bias"] = np.zeros(120, np.int64)
    with pytest.raises(WeightsMismatchError) as error:
        zoo.load_weights(model, state)
    for part in (
        "missing: fc2.bias",
        "unexpected: fc9.weight",
        "conv2.weight (16x6x3x3 given, 16x6x5x5 needed)",
        "int64 given",
    ):
        assert part in str(error.value)
    for name, value in torch_arrays(model).items():
        np.testing.assert_array_equal(value, before[name])


def test_another_number_of_classes_keeps_the_trunk() -> None:
    state = torch_arrays(zoo.create_model("lenet5", num_classes=12, rngs=1))
    model = zoo.create_model("lenet5", num_classes=5, weights=state)
    fresh = zoo.create_model("lenet5", num_classes=5)
    np.testing.assert_array_equal(model.fc3.kernel[...], fresh.fc3.kernel[...])
    np.testing.assert_array_equal(torch_arrays(model)["fc2.weight"], state["fc2.weight"])
    report = zoo.load_weights(fresh, state)
    assert report.kept == ("fc3.weight", "fc3.bias")
    with pytest.raises(WeightsMismatchError, match=r"fc3.weight \(12x84 given, 5x84 needed\)"):
        zoo.load_weights(fresh, state, adapt=False)
    half = {n: v for n, v in state.items() if n != "fc3.bias"}
    with pytest.raises(WeightsMismatchError, match=r"missing: fc3.bias; misshapen: fc3.weight"):
        zoo.load_weights(fresh, half)


def test_large_kernels_that_weights_replace_are_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    draw = initializers._draw
    monkeypatch.setattr(initializers, "_LARGE", 84 * 4)
    monkeypatch.setattr(initializers, "_draw", lambda kind, key, shape, *a: drawn.append(shape) or draw(kind, key, shape, *a))
    state = torch_arrays(zoo.create_model("lenet5", num_classes=12, rngs=1))
    expected = zoo.create_model("lenet5", num_classes=5, rngs=nnx.Rngs(7))  # all drawn, as before
    drawn.clear()
    streams = nnx.Rngs(7)
    model = zoo.create_model("lenet5", num_classes=5, rngs=streams, weights=state)
    assert [shape for shape in drawn if len(shape) > 1] == [(5, 5, 1, 6), (84, 5)]  # a small one, and what the weights lack
    np.testing.assert_array_equal(model.fc3.kernel[...], expected.fc3.kernel[...])
    np.testing.assert_array_equal(torch_arrays(model)["fc2.weight"], state["fc2.weight"])

    class Scaled(zoo.LeNet5):  # it computes with a kernel when it is made
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.fc3.kernel.set_value(2 * self.fc3.kernel[...])

    monkeypatch.setitem(registry._models, "scaled", (zoo.model_info("lenet5"), Scaled))
    model = zoo.create_model("scaled", num_classes=5, rngs=nnx.Rngs(7), weights=state)
    np.testing.assert_array_equal(model.fc3.kernel[...], 2 * expected.fc3.kernel[...])


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_another_number_of_channels_gives_what_equal_channels_gave(channels: int, peer: torch.nn.Module) -> None:
    model = abstract(in_channels=channels)
    report = zoo.load_weights(model, peer.state_dict())
    assert report.adapted == ("conv1.weight",)
    old, new = peer.conv1.weight.detach().numpy(), torch_arrays(model)["conv1.weight"]
    assert new.shape == (64, channels, 7, 7)
    if channels in (1, 6):  # where every old channel counts equally, the sum over channels is kept
        np.testing.assert_allclose(new.sum(1), old.sum(1), rtol=1e-4, atol=1e-5)  # float32 sums, cancelling
    else:
        np.testing.assert_allclose(new, np.tile(old, (1, 2, 1, 1))[:, :channels] * 3 / channels, rtol=1e-6)


def test_heads_that_the_model_lacks_are_left_out() -> None:
    peer = peers.torch_model("googlenet", num_classes=12)
    model = abstract("googlenet", aux_logits=False)
    zoo.load_weights(model, peer.state_dict())
    state = {n: v for n, v in peer.state_dict().items() if not n.startswith("aux")}
    with pytest.raises(WeightsMismatchError, match="missing: aux1"):
        zoo.load_weights(abstract("googlenet"), state)


def test_vgg_in_timms_form() -> None:
    timm = {
        "features.0.weight": np.zeros((64, 3, 3, 3)),
        "pre_logits.fc1.weight": np.zeros((8, 4, 7, 7)),
        "pre_logits.fc2.bias": np.zeros(8),
        "head.fc.weight": np.zeros((2, 8)),
    }
    renamed = abstract("vgg11").rename_foreign(timm)
    assert {name: value.shape for name, value in renamed.items()} == {
        "features.0.weight": (64, 3, 3, 3),
        "classifier.0.weight": (8, 196),
        "classifier.3.bias": (8,),
        "classifier.6.weight": (2, 8),
    }


def test_counter_may_be_missing_and_prefix_of_data_parallel_goes(peer: torch.nn.Module) -> None:
    state = {f"module.{n}": v for n, v in peer.state_dict().items() if not n.endswith("num_batches_tracked")}
    model = abstract()
    report = zoo.load_weights(model, state)
    assert set(report.loaded) == {name.removeprefix("module.") for name in state}


def test_sharded_parameters_stay_sharded() -> None:
    model = zoo.create_model("lenet5")
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    model.fc1.kernel.set_value(jax.device_put(model.fc1.kernel[...], sharding))
    zoo.load_weights(model, torch_arrays(zoo.create_model("lenet5", rngs=1)))
    assert model.fc1.kernel.get_value().sharding == sharding


class _Evil:
    def __reduce__(self):
        return (pathlib.Path.touch, (pathlib.Path("evil"),))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_asks_for_code_is_refused(zipped: bool, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": torch.zeros(2), "more": _Evil()}, "m.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsFileError, match=r"m.pth: it asks for .*nothing was run"):
        read_pth("m.pth")
    assert not pathlib.Path("evil").exists()


def test_damaged_files_are_named(tmp_path: pathlib.Path) -> None:
    whole = tmp_path / "m.pth"
    torch.save({"weight": torch.zeros(1000), "view": torch.arange(12.0).reshape(3, 4).T}, whole)
    np.testing.assert_array_equal(read_pth(whole)["view"], np.arange(12.0).reshape(3, 4).T)
    content = whole.read_bytes()
    cases = {
        "cut.pth": content[:-500],
        "empty.pth": b"",
        "text.pth": b"<html>not found</html>",
        "pickle.pth": pickle.dumps({"weight": 1}),
        "text.safetensors": b"<html>not found</html>",
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(WeightsFileError, match=name):
            zoo.load_weights(zoo.create_model("lenet5"), tmp_path / name)
    with pytest.raises(ValueError, match=r"source: .*m.onnx"):
        zoo.load_weights(zoo.create_model("lenet5"), "m.onnx")
    with pytest.raises(FileNotFoundError):
        zoo.load_weights(zoo.create_model("lenet5"), tmp_path / "none.pth")
    with pytest.raises(ValueError, match=r"path: 'm.pth' given"):
        zoo.save_weights(zoo.create_model("lenet5"), "m.pth")
