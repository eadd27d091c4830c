"""State dicts as training scripts leave them: wrappers' prefixes, entries of a checkpoint, other objects beside the tensors."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import logging
import os
import pathlib
import types

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import zoo
from zoo.weights import WeightsFileError, WeightsMismatchError, read_pth, torch_arrays, torch_tensors
from zoo.weights.state_dicts import without_prefix


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    return torch_arrays(zoo.create_model("lenet5", rngs=7))


@pytest.fixture
def model() -> nnx.Module:
    return nnx.eval_shape(lambda: zoo.create_model("lenet5"))


def tensors(state: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value.copy()) for name, value in state.items()}


def check(model: nnx.Module, state: dict[str, np.ndarray]) -> None:
    for name, value in torch_arrays(model).items():
        np.testing.assert_array_equal(value, state[name])


def within(name: str, wrapper: str) -> str:
    layer, _, kind = name.rpartition(".")
    return f"{layer}.{wrapper}.{kind}"


@pytest.mark.parametrize(
    "rename",
    [
        *(
            lambda name, prefix=prefix: prefix + name
            for prefix in (
                "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "net.", "model._orig_mod.",
                "model.net.", "_orig_mod.model.module.", "ema_model.module.",
            )
        ),
        lambda name: within(name, "module"),
        lambda name: within(name, "_orig_mod") if name.startswith("fc") else name,
        lambda name: "model." + within(name, "_orig_mod.module"),
        lambda name: f"module.{name}" if name.startswith("conv") else name,
    ],
)  # fmt: skip
def test_prefixes_of_wrappers(rename, model: nnx.Module, state: dict[str, np.ndarray]) -> None:
    report = zoo.load_weights(model, {rename(name): value for name, value in state.items()})
    assert set(report.loaded) == set(state)
    check(model, state)


def test_a_wrapped_part_of_alexnet_and_a_layer_alone() -> None:
    names = torch_tensors(nnx.eval_shape(lambda: zoo.create_model("alexnet")))
    old = {name.replace("features.", "features.module."): None for name in names}  # as torchvision's reference once trained it
    assert "features.module.0.weight" in old
    assert without_prefix(old, names).tensors.keys() == names.keys()
    assert without_prefix({"module.weight_ih_l0": None}, {"weight_ih_l0"}).tensors == {"weight_ih_l0": None}


def test_averaged_models_count_and_others_stand_beside(
    model: nnx.Module, state: dict[str, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    averaged = {"n_averaged": np.array(12)} | {f"module.{name}": value for name, value in state.items()}
    assert zoo.load_weights(model, averaged).skipped == ("n_averaged",)
    lightning = {"criterion.weight": np.ones(10)} | {f"model.{name}": value for name, value in state.items()}
    caplog.clear()
    assert zoo.load_weights(model, lightning).skipped == ("criterion.weight",)
    assert caplog.messages == ["source: weights taken from 'model.'; left out: criterion.weight"]
    check(model, state)


@pytest.mark.parametrize(
    "entry",
    ["model_state_dict", "state_dict", "net", "model", "state_dict_ema", "model_ema", "module", "lenet", "model.state_dict"],
)  # fmt: skip
def test_entries_of_a_checkpoint(entry: str, state: dict[str, np.ndarray], model: nnx.Module, tmp_path: pathlib.Path) -> None:
    checkpoint: dict = {"epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}}
    inner = checkpoint
    *outer, last = entry.split(".")
    for name in outer:
        inner[name] = inner = {}
    inner[last] = tensors(state)
    torch.save(checkpoint, tmp_path / "m.pth")
    for source in (checkpoint, tmp_path / "m.pth"):  # a mapping is looked into like a file
        report = zoo.load_weights(model, source)
        assert report.skipped == ("epoch", "optimizer")
        check(model, state)


def test_averaged_weights_come_before_the_last_ones(
    model: nnx.Module, state: dict[str, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    """As torchvision's reference saves them: model, and model_ema, an AveragedModel."""
    averaged = {"n_averaged": np.array(5)} | {f"module.{name}": value for name, value in state.items()}
    last = {name: value + 1 for name, value in state.items()}
    report = zoo.load_weights(model, {"model": last, "model_ema": averaged, "epoch": 1, "scaler": {}, "args": 1})
    assert report.skipped == ("model", "epoch", "scaler", "args", "n_averaged")
    check(model, state)
    assert "weights taken from 'model_ema' 'module.'; left out: model, epoch, scaler and 2 more" in caplog.messages[0]


class Choice(enum.Enum):
    SGD = 1


class Config:
    """A class of a training script, which the reader of the file does not have."""

    def __init__(self, rate: float):
        self.rate = rate


def others() -> dict:
    return {
        "counter": collections.Counter("abc"),
        "ordered": collections.OrderedDict(a=1),
        "default": collections.defaultdict(list, {"a": [1]}),
        "deque": collections.deque([1]),
        "size": torch.Size([3, 4]),
        "device": torch.device("cpu"),
        "dtype": torch.bfloat16,
        "args": argparse.Namespace(lr=0.1, out=pathlib.Path("out")),
        "best": np.float64(0.93),
        "count": np.int64(3),
        "history": np.arange(3.0),
        "kind": np.dtype("int8"),
        "date": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        "space": types.SimpleNamespace(a=1),
        "choice": Choice.SGD,
        "config": Config(0.1),
        "class": Config,
        "set": {1, 2},
        "complex": 1j,
        "bytes": b"abc",
        "eighths": torch.ones(2).to(torch.float8_e4m3fn),
    }


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pth.tar", ".ckpt", ".bin", ".PTH"])
def test_objects_beside_the_tensors_are_left_out(
    suffix: str, model: nnx.Module, state: dict[str, np.ndarray], tmp_path: pathlib.Path
) -> None:
    path = tmp_path / f"m{suffix}"
    torch.save({"state_dict": tensors(state), **others()}, path)
    report = zoo.load_weights(model, path)
    check(model, state)
    said = {entry.partition(" ")[0]: entry for entry in report.skipped}
    assert said.keys() == others().keys()
    assert said["args"] == "args (argparse.Namespace)"
    assert said["config"].endswith(".Config)")
    torch.save({**tensors(state), **others()}, path)  # beside the tensors themselves
    assert set(others()) - {"eighths"} <= {entry.partition(" ")[0] for entry in zoo.load_weights(model, path).skipped}


def test_the_older_layout_and_kinds_of_tensors(model: nnx.Module, state: dict[str, np.ndarray], tmp_path: pathlib.Path) -> None:
    kept = collections.defaultdict(dict, {"net": collections.OrderedDict(tensors(state)), "args": argparse.Namespace(a=1)})
    torch.save(kept, tmp_path / "m.pt", _use_new_zipfile_serialization=False)
    assert zoo.load_weights(model, tmp_path / "m.pt").skipped == ("args (argparse.Namespace)",)
    check(model, state)
    named, marked = torch.nn.Parameter(torch.ones(2)), torch.arange(3.0)
    named.note, marked.note = "a", "b"
    torch.save({"named": named, "marked": marked, "complex": torch.tensor([1 + 2j])}, tmp_path / "n.pt")
    found = read_pth(tmp_path / "n.pt")
    assert {name: value.tolist() for name, value in found.items()} == {
        "named": [1, 1],
        "marked": [0, 1, 2],
        "complex": [1 + 2j],
    }


class _Evil:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize(
    "call",
    [
        (os.system, "touch evil"),
        (eval, "open('evil', 'w')"),
        (exec, "open('evil', 'w')"),
        (getattr, pathlib.Path("evil"), "touch"),
        (__import__, "os"),
        (pathlib.Path.touch, pathlib.Path("evil")),
    ],
)
def test_nothing_of_a_file_is_run(call: tuple, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"weight": torch.zeros(2)}, "more": _Evil(*call)}, "m.pth")
    with pytest.raises(WeightsFileError, match=r"m.pth: it asks for .*nothing was run"):
        read_pth("m.pth")
    # Functions of other packages are named by checkpoints, and as little run.
    torch.save({"state_dict": {"weight": torch.zeros(2)}, "more": _Evil(np.save, "evil", 1), "again": _Evil(_touch)}, "n.pth")
    np.testing.assert_array_equal(read_pth("n.pth")["weight"], 0)
    assert not list(tmp_path.glob("evil*"))


def _touch() -> None:
    pathlib.Path("evil").touch()


def test_a_mismatch_is_short_and_names_the_prefix(state: dict[str, np.ndarray], model: nnx.Module) -> None:
    resnet = torch_tensors(nnx.eval_shape(lambda: zoo.create_model("resnet50")))
    with pytest.raises(WeightsMismatchError) as caught:
        zoo.load_weights(model, {name: np.zeros(1) for name in resnet})
    assert len(str(caught.value)) < 400
    assert "unexpected: conv1.weight" not in str(caught.value)
    assert "unexpected: bn1.weight, bn1.bias, bn1.running_mean and 316 more" in str(caught.value)
    assert "prefix" not in str(caught.value)
    assert len(caught.value.unexpected) == 319

    strange = {f"backbone.trunk.{name}": value for name, value in state.items()}
    with pytest.raises(WeightsMismatchError, match=r"and 7 more; .*; 10 of 10 names fit with prefix='backbone.trunk.'$"):
        zoo.load_weights(model, strange)
    for prefix in ("backbone.trunk.", "backbone.trunk"):
        assert len(zoo.load_weights(model, strange, prefix=prefix).loaded) == 10
    check(model, state)
    with pytest.raises(ValueError, match=r"prefix: 'neck.' given, the names begin with backbone.trunk.conv1"):
        zoo.load_weights(model, strange, prefix="neck")
    twice = strange | {f"teacher.{name}": value + 1 for name, value in state.items()}
    with pytest.raises(WeightsMismatchError, match=r"fit with prefix='backbone.trunk.' or prefix='teacher.'$"):
        zoo.load_weights(model, twice)
    both = {f"{prefix}.{name}": value for name, value in state.items() for prefix in ("model", "ema_model")}
    with pytest.raises(ValueError, match=r"prefix: needed, since the names fit without 'model.' and without 'ema_model.'"):
        zoo.load_weights(model, both)
    outer = nnx.Dict(trunk=zoo.create_model("lenet5"))
    with pytest.raises(WeightsMismatchError, match=r"10 of 10 names lack 'trunk.', which this model has in front"):
        zoo.load_weights(outer, state)


def test_mappings_without_arrays() -> None:
    for nothing in ({}, {"epoch": 3}, {"model": {}}):
        with pytest.raises(ValueError, match=r"source: a mapping of \d entries given that holds no arrays"):
            zoo.load_weights(zoo.create_model("lenet5"), nothing)


@pytest.mark.parametrize(("options", "warned"), [({}, True), ({"transform_input": False}, False), ({"in_channels": 1}, False)])
def test_googlenet_asks_what_its_input_is(
    options: dict, warned: bool, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    build = lambda **options: nnx.eval_shape(lambda: zoo.create_model("googlenet", num_classes=3, aux_logits=False, **options))
    zeros = {
        name: torch.zeros(tensor.shape, dtype=torch.int64 if name.endswith("tracked") else torch.float32)
        for name, tensor in torch_tensors(build()).items()
    }
    torch.save(zeros, tmp_path / "renamed.pth")
    model = build(**options)
    with caplog.at_level(logging.WARNING):
        zoo.load_weights(model, tmp_path / "renamed.pth")
    assert any("transform_input: not given, False taken" in message for message in caplog.messages) is warned
    assert not model.transform_input
    (tmp_path / "renamed.pth").rename(tmp_path / "googlenet-1378be20.pth")  # as torchvision names it
    caplog.clear()
    zoo.load_weights(model, tmp_path / "googlenet-1378be20.pth")
    assert model.transform_input is (True if warned else options.get("transform_input"))
    assert not [message for message in caplog.messages if "transform_input" in message]
    assert jnp.float32 == model.conv1.conv.kernel.get_value().dtype
