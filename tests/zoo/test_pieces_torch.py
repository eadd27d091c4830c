"""Models without their classifier, with other pooling, and as givers of feature maps: against torchvision's own layers."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import zoo
from experiments.peers import torch_vision as peers
from zoo.weights.load import torch_arrays

TOLERANCE = 1e-5  # float32 sums of up to 25,088 products in another order

# Torch's names of the modules whose outputs are our stages.
INCEPTIONS = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
STAGES = {
    "resnet18": {"stem": "maxpool", **{f"layer{n}": f"layer{n}" for n in (1, 2, 3, 4)}},
    "vgg11_bn": {f"block{n}": f"features.{at}" for n, at in enumerate((3, 7, 14, 21, 28), 1)},
    "alexnet": {
        s: f"features.{at}" for s, at in zip(("pool1", "pool2", "conv3", "conv4", "pool5"), (2, 5, 7, 9, 12), strict=True)
    },
    "googlenet": {"conv1": "maxpool1", "conv3": "maxpool2", **{f"inception{n}": f"inception{n}" for n in INCEPTIONS}},
}
SIZE = {"resnet18": 48, "vgg11_bn": 32, "alexnet": 64, "googlenet": 48}


@functools.cache
def peer_of(name: str) -> Any:
    return peers.torch_model(name, num_classes=12, **({"aux_logits": False} if name == "googlenet" else {})).eval()


def outputs_of(name: str, x: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What torch's modules give by our stages, and what its classifier reads."""
    peer, seen = peer_of(name), {}

    def keep(key: str, value: Any) -> None:
        value = value.detach().numpy()
        seen[key] = value.transpose(0, 2, 3, 1) if value.ndim == 4 else value

    modules = dict(peer.named_modules())
    classifier = [module for module in modules.values() if isinstance(module, torch.nn.Linear)][-1]
    hooks = [classifier.register_forward_pre_hook(lambda _, inputs: keep("read", inputs[0]))]
    for ours, theirs in STAGES[name].items():
        hooks.append(modules[theirs].register_forward_hook(lambda _, __, value, ours=ours: keep(ours, value.clone())))
    with torch.no_grad():
        peer(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    for hook in hooks:
        hook.remove()
    return seen, seen.pop("read")


def created(name: str, **options: Any) -> Any:
    model: Any = zoo.create_model(name, weights=peer_of(name).state_dict(), **options)
    return zoo.evaluation_view(model)


def close(ours: jax.Array, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE * np.abs(theirs).max(), rtol=0)


apply = nnx.jit(lambda model, x: model(x))


@pytest.mark.parametrize("name", STAGES)
def test_feature_maps_and_headless(name: str, rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, SIZE[name], SIZE[name], 3)).astype(np.float32)
    maps, read = outputs_of(name, x)
    names = list(STAGES[name])

    headless = created(name, num_classes=0)
    close(apply(headless, x), read)
    assert headless.num_features == read.shape[-1]

    chosen = sorted(rng.choice(len(names) - 1, 2, replace=False).tolist())  # never the last, so that something is dropped
    part = created(name, features_only=True, out_indices=[chosen[0], chosen[1] - len(names)])
    found = apply(part, x)
    assert [info.name for info in part.feature_info] == [names[index] for index in chosen]
    for index, map_, info in zip(chosen, found, part.feature_info, strict=True):
        close(map_, maps[names[index]])
        assert info.channels == map_.shape[-1]
    assert zoo.count_params(part) < zoo.count_params(headless)


@pytest.mark.parametrize("kind", ["max", "avgmax", None])
def test_pooling(kind: str | None, rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 97, 65, 3)).astype(np.float32)
    maps, mean = outputs_of("resnet18", x)
    last = maps["layer4"]
    highest = last.max((1, 2))
    expected = {"max": highest, "avgmax": (mean + highest) / 2, None: last}[kind]
    close(apply(created("resnet18", num_classes=0, global_pool=kind), x), expected)
    if kind is not None:
        fc = peer_of("resnet18").fc
        logits = expected @ fc.weight.detach().numpy().T + fc.bias.detach().numpy()
        close(apply(created("resnet18", num_classes=12, global_pool=kind), x), logits)


@pytest.mark.parametrize("name", STAGES)
def test_the_head_on_its_own(name: str) -> None:
    """As in timm: the call is the head of the features, and `pre_logits` is what a headless model gives."""
    model = zoo.evaluation_view(zoo.create_model(name, num_classes=3)) if name == "resnet18" else None
    if model is None:
        model = nnx.eval_shape(lambda: zoo.evaluation_view(zoo.create_model(name, num_classes=3)))
    x = jnp.ones((1, SIZE[name], SIZE[name], 3))

    def parts(model: Any, x: jax.Array) -> tuple[jax.Array, ...]:
        map_ = model.forward_features(x)
        return model(x), model.forward_head(map_), model.forward_head(map_, pre_logits=True)

    if name == "resnet18":
        whole, logits, read = nnx.jit(parts)(model, x)
        np.testing.assert_array_equal(whole, logits)
    else:
        whole, logits, read = nnx.eval_shape(parts, model, x)
    assert whole.shape == logits.shape == (1, 3)
    assert read.shape == (1, model.num_features)


def test_classifiers_come_and_go(tmp_path: Any) -> None:
    model: Any = zoo.create_model("resnet20_cifar", num_classes=4, rngs=1)
    zoo.save_model(model, tmp_path / "whole")
    zoo.save_weights(model, tmp_path / "own.safetensors", layout="zoo")
    x = jnp.ones((1, 32, 32, 3))
    features = zoo.features(zoo.evaluation_view(model), x)["pool"]
    for source in (tmp_path / "whole", tmp_path / "own.safetensors", torch_arrays(model)):
        headless: Any = zoo.create_model("resnet20_cifar", num_classes=0, weights=source)
        np.testing.assert_array_equal(zoo.evaluation_view(headless)(x), features)
    model.reset_classifier(0)
    zoo.save_model(model, tmp_path / "headless")
    read: Any = zoo.load_model(tmp_path / "headless")
    np.testing.assert_array_equal(read(x), features)
    assert zoo.weights_info(read).classes == ()
    read.reset_classifier(6, rngs=2)
    assert read(x).shape == (1, 6)
    maps: Any = zoo.create_model("resnet20_cifar", features_only=True, out_indices=(1,), weights=tmp_path / "whole")
    zoo.save_model(maps, tmp_path / "maps")
    again: Any = zoo.load_model(tmp_path / "maps")
    assert again.feature_info == maps.feature_info == (zoo.FeatureInfo("layer1", 16, 1),)
    np.testing.assert_array_equal(again(x)[0], zoo.evaluation_view(maps)(x)[0])


@pytest.mark.parametrize(
    ("name", "shape", "features"),
    [("lenet5", (2, 32, 32, 1), (2, 84)), ("bilstm_classifier", (2, 5, 32), (2, 256)), ("bilstm_tagger", (2, 7), (2, 7, 256)),
     ("googlenet_original", (1, 33, 33, 3), (1, 1024)), ("alexnet_original", (1, 64, 64, 3), (1, 4096))],
)  # fmt: skip
def test_headless_models(name: str, shape: tuple[int, ...], features: tuple[int, ...]) -> None:
    model: Any = nnx.eval_shape(lambda: zoo.create_model(name, num_classes=0))
    x = jnp.zeros(shape, jnp.int32 if len(shape) == 2 else jnp.float32)
    assert nnx.eval_shape(lambda m, x: m(x), model, x).shape == features
    assert model.num_features == features[-1]
    shapes = nnx.eval_shape(lambda: zoo.create_model(name, num_classes=5))
    ignored = tuple(model.torch_ignored())
    for key in zoo.weights.names.torch_tensors(shapes).keys() - zoo.weights.names.torch_tensors(model).keys():
        assert key.startswith(ignored), key


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet18", {"global_pool": None}, r"global_pool: None given with num_classes=1000; .* needs num_classes=0"),
        (
            "googlenet",
            {"global_pool": "mean", "num_classes": 0},
            "global_pool: 'mean' given, it is one of avg, max, avgmax or None",
        ),
        (
            "resnet18",
            {"features_only": True, "out_indices": [5]},
            r"out_indices: \[5\] given, a list of stage numbers .* 4 layer4",
        ),
        ("resnet18", {"features_only": True, "out_indices": "12"}, "out_indices: '12' given"),
        ("resnet18", {"features_only": True, "out_indices": []}, r"out_indices: \[\] given"),
        ("resnet18", {"out_indices": [1]}, r"out_indices: \[1\] given without features_only=True"),
        ("lenet5", {"features_only": True}, "features_only: lenet5 has no such form; zoo.features"),
        ("gan_mlp", {"num_classes": 0}, "num_classes: 0 given"),
        ("lstm_lm", {"num_classes": 0}, "num_classes: 0 given"),
        ("lenet5_original", {"num_classes": 0}, "num_classes: 0 given"),
    ],
)
def test_what_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: zoo.create_model(name, **options))


def test_what_has_no_head_says_so() -> None:
    maps: Any = zoo.create_model("resnet20_cifar", features_only=True)
    with pytest.raises(ValueError, match="forward_head: this model was made with features_only=True and has no head"):
        maps.forward_head(jnp.zeros((1, 8, 8, 64)))
    with pytest.raises(ValueError, match="features_only=True and has no head"):
        maps.reset_classifier(3, rngs=0)
    headless = zoo.create_model("resnet20_cifar", num_classes=0)
    for model in (maps, headless):
        with pytest.raises(ValueError, match="model: this ResNet has no classifier; reset_classifier"):
            zoo.predict(model, np.zeros((32, 32, 3), np.uint8))


def test_stages() -> None:
    assert zoo.stages(nnx.eval_shape(lambda: zoo.create_model("vgg11"))) == {
        **{f"block{n}": (f"blocks.{n - 1}",) for n in range(1, 6)}, "fc6": ("fc6",), "fc7": ("fc7",), "classifier": ("fc8",),
    }  # fmt: skip
    for name in zoo.list_models():
        model = nnx.eval_shape(lambda name=name: zoo.create_model(name))
        found = zoo.stages(model)
        paths = [f"{path}." for paths in found.values() for path in paths]
        for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param)):
            owners = [start for start in paths if ".".join(map(str, path)).startswith(start)]
            assert len(owners) == 1, (name, path)
