"""zoo.fold_batch_norm: outputs as before, no batch norm left where a convolution precedes it, the model as it was."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from zoo.layers.conv import Conv
from zoo.layers.conv_transpose import ConvTranspose
from zoo.layers.norm import BatchNormAct, FoldedNorm
from zoo.layers.spectral_norm import SpectralNorm
from zoo.models.resnet import BasicBlock

# Batch norms of each model, every one of which a convolution precedes.
NORMS = {
    "dcgan": 4 + 3,  # generator and discriminator
    "googlenet": 3 + 9 * 6 + 2,  # stem, inception modules, auxiliary classifiers
    "resnet18": 20,
    "resnet34": 36,
    "resnet50": 53,
    "resnet101": 104,
    "resnet152": 155,
    "resnext50_32x4d": 53,
    "resnext101_32x8d": 104,
    "resnext101_64x4d": 104,
    "wide_resnet50_2": 53,
    "wide_resnet101_2": 104,
    "resnet20_cifar": 19,
    "resnet32_cifar": 31,
    "resnet44_cifar": 43,
    "resnet56_cifar": 55,
    "resnet110_cifar": 109,
    "vgg11_bn": 8,
    "vgg13_bn": 10,
    "vgg16_bn": 13,
    "vgg19_bn": 16,
}
# float32 rounds to 6e-8; kernels are rounded once more, and sums are taken of other terms. A wrong channel changes all digits.
CLOSE = 1e-5


call: Any = nnx.jit(lambda model, x: model(x))


def count(model: nnx.Module, kind: type) -> int:
    return sum(isinstance(node, kind) for _, node in nnx.iter_graph(model))


def drawn(build: Callable[[], nnx.Module], rng: np.random.Generator) -> nnx.Module:
    """The model with every value drawn: kernels as He et al. 2015 have them, scales of both signs and next to zero."""
    model: Any = nnx.eval_shape(build)
    for path, variable in nnx.iter_graph(model):
        if not isinstance(variable, nnx.Param | nnx.BatchStat):
            continue
        shape, dtype = variable.get_value().shape, variable.get_value().dtype
        if path[-1] == "num_batches_tracked":
            value = np.zeros(shape)
        elif path[-1] == "var":
            value = rng.uniform(0.2, 2, shape)
        elif path[-1] == "scale":
            value = rng.uniform(-1.2, 1.2, shape) * rng.choice([1, 1, 1, 1e-3, 0], shape)
        else:
            bound = np.sqrt(6 / np.prod(shape[:-1])) if path[-1] == "kernel" else 0.5
            value = (2 * rng.random(shape, np.float32) - 1) * np.float32(bound)
        variable.set_value(jnp.asarray(value, dtype))
    # Random streams, which evaluation does not use.
    for path, variable in nnx.iter_graph(model):
        if isinstance(variable, nnx.RngState):
            variable.set_value(jax.random.key(0) if path[-1] == "key" else jnp.uint32(0))
    return model


def small(**options: Any) -> zoo.ResNet:
    """A stem of 7x7, a shortcut with a convolution, one without parameters."""
    return zoo.ResNet(BasicBlock, (1, 1), widths=(4, 8), num_classes=5, **{"rngs": nnx.Rngs(0)} | options)


def images(rng: np.random.Generator, dtype: Any = jnp.float32) -> jax.Array:
    return jnp.asarray(rng.normal(size=(2, 17, 16, 3)), dtype)


def assert_close(found: Any, expected: Any, tolerance: float) -> None:
    """Each array up to `tolerance` of its largest value."""
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == theirs.dtype
        largest = np.abs(theirs).max()
        assert 0 < largest < np.inf
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if NORMS[name] > 100 else ()) for name in NORMS])
def test_every_model_with_batch_norm(name: str, rng: np.random.Generator) -> None:
    # Without the dense layers of VGG, which are most of its parameters and not concerned.
    options: dict[str, Any] = {"features_only": True} if name.startswith("vgg") else {}
    model: Any = drawn(lambda: zoo.create_model(name, **options), rng)
    folded = zoo.fold_batch_norm(model)
    assert count(model, BatchNormAct) == NORMS[name]
    assert (count(folded, BatchNormAct), count(folded, FoldedNorm)) == (0, NORMS[name])
    side = max(16, getattr(model, "min_size", 0))
    x = jnp.asarray(rng.normal(size=(2, 100) if name == "dcgan" else (2, side, side, 3)), jnp.float32)
    # Many layers of few shapes take the least time one by one, few layers of many shapes compiled together.
    features: Any = nnx.jit(lambda model, x: model.features(x)) if name in ("dcgan", "googlenet") else zoo.features
    assert_close(features(folded, x), features(zoo.evaluation_view(model), x), CLOSE)


def test_no_other_model_has_batch_norm() -> None:
    for name in set(zoo.list_models()) - set(NORMS):
        assert count(nnx.eval_shape(lambda name=name: zoo.create_model(name)), BatchNormAct) == 0, name
    assert set(NORMS) <= set(zoo.list_models())


BUILDERS: dict[str, Callable[..., nnx.Module]] = {
    "resnet": small,
    "resnet20_cifar": lambda **options: zoo.create_model("resnet20_cifar", **options),
    "space to depth": lambda **options: small(space_to_depth=True, **options),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_float64(name: str, rng: np.random.Generator) -> None:
    with jax.enable_x64(True):
        model: Any = drawn(lambda: BUILDERS[name](param_dtype=jnp.float64), rng)
        folded: Any = zoo.fold_batch_norm(model)
        x = images(rng, jnp.float64)
        assert folded.conv1.bias[...].dtype == np.float64
        # float64 rounds to 1.1e-16; the rest is room for the number of layers.
        assert_close(call(folded, x), call(zoo.evaluation_view(model), x), 1e-12)


@pytest.mark.parametrize("param_dtype", [jnp.bfloat16, jnp.float32])
def test_bfloat16(param_dtype: Any, rng: np.random.Generator) -> None:
    """Not further from the same values in float32 than the unfolded model, up to twice: a kernel is rounded once more."""
    model: Any = drawn(lambda: small(dtype=jnp.bfloat16, param_dtype=param_dtype), rng)
    exact: Any = small()
    nnx.update(exact, jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), nnx.state(model, (nnx.Param, nnx.BatchStat))))
    folded: Any = zoo.fold_batch_norm(model)
    assert {p.get_value().dtype for _, p in nnx.iter_graph(folded) if isinstance(p, nnx.Param)} == {jnp.dtype(param_dtype)}
    x = jnp.asarray(rng.normal(size=(16, 17, 16, 3)), jnp.float32)
    expected = np.asarray(call(zoo.evaluation_view(exact), x))
    ours, before = call(folded, x), call(zoo.evaluation_view(model), x)
    assert ours.dtype == before.dtype == jnp.bfloat16
    error = lambda y: np.sqrt(np.mean((np.asarray(y, np.float32) - expected) ** 2))
    assert 0 < error(ours) <= 2 * error(before)


def test_the_model_is_left_as_it_is_and_shares_nothing(rng: np.random.Generator) -> None:
    model: Any = drawn(lambda: zoo.create_model("resnet20_cifar", dropout=0.5), rng)
    before, x = jax.tree.leaves(nnx.state(model)), images(rng)
    folded = zoo.fold_batch_norm(model)
    expected = call(folded, x)
    assert all(old is new for old, new in zip(before, jax.tree.leaves(nnx.state(model)), strict=True))
    assert (model.bn1.use_running_average, model.dropout.deterministic) == (False, False)
    assert (model.conv1.bias, type(model.bn1), folded.zoo_name) == (None, BatchNormAct, "resnet20_cifar")
    for array in before:
        array.delete()  # as a training step does with what is donated to it
    np.testing.assert_array_equal(call(folded, x), expected)
    assert count(zoo.fold_batch_norm(folded), FoldedNorm) == 19  # once more changes nothing
    np.testing.assert_array_equal(call(zoo.fold_batch_norm(folded), x), expected)


def test_under_transformations(rng: np.random.Generator) -> None:
    model: Any = drawn(small, rng)
    x, folded = images(rng), zoo.fold_batch_norm(model)
    expected = folded(x)  # type: ignore[operator]
    params, state, apply = zoo.functional(folded)
    assert state == {}
    for outputs in (
        call(folded, x),
        nnx.jit(lambda model, x: zoo.fold_batch_norm(model)(x))(model, x),  # type: ignore[operator]
        jax.jit(lambda x: folded(x))(x),  # type: ignore[operator]
        jax.jit(apply)(params, state, x)[0],
    ):
        assert_close(outputs, expected, CLOSE)
    shapes = nnx.eval_shape(lambda: zoo.fold_batch_norm(small()))
    assert count(shapes, FoldedNorm) == count(folded, FoldedNorm) == 6
    like = lambda node: jax.tree.map(lambda a: (a.shape, a.dtype), nnx.state(node))
    assert like(shapes) == like(folded)
    assert zoo.count_params(folded) == zoo.count_params(model) - sum(
        n.channels for _, n in nnx.iter_graph(model) if isinstance(n, BatchNormAct)
    )


def test_files(tmp_path: pathlib.Path, rng: np.random.Generator) -> None:
    """A folded model is not saved as one that is not, nor given the weights of one."""
    folded = zoo.fold_batch_norm(zoo.create_model("resnet20_cifar"))
    with pytest.raises(ValueError, match=r"model: zoo.fold_batch_norm made it, .* fold what zoo.load_model returns"):
        zoo.save_model(folded, tmp_path / "folded")
    zoo.save_model(zoo.create_model("resnet20_cifar"), tmp_path / "model")
    with pytest.raises(ValueError, match="source: "):
        zoo.load_weights(folded, tmp_path / "model" / "model.safetensors")
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_predictions(rng: np.random.Generator) -> None:
    model = drawn(lambda: zoo.create_model("resnet20_cifar"), rng)
    given = {"preprocessing": zoo.Preprocessing((32, 32), (32, 32)), "classes": "abcdefghij"}
    image = rng.integers(0, 256, (40, 50, 3), np.uint8)
    found, expected = (dict(zoo.predict(m, image, 10, **given)) for m in (zoo.fold_batch_norm(model), model))
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)  # probabilities of logits that are equal up to 1e-5
    assert len(expected) == 10


class Pair(nnx.Module):
    """A convolution with its norm, and what else a test wants of it."""

    def __init__(self, convolution: nnx.Module, channels: int, **norm: Any):
        self.conv, self.bn = convolution, BatchNormAct(channels, rngs=nnx.Rngs(0), **norm)

    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        return [("conv", "bn")]

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.bn(self.conv(x))  # type: ignore[operator]


class TwoNorms(Pair):
    """One convolution, two norms of its output."""

    def __init__(self, convolution: nnx.Module, channels: int):
        super().__init__(convolution, channels)
        self.other = BatchNormAct(channels, rngs=nnx.Rngs(0))

    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        return [("conv", "bn"), ("conv", "other")]

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv(x)  # type: ignore[operator]
        return self.bn(y) * self.other(y)


class Elsewhere(nnx.Module):
    """Pairs, one of whose convolutions something else uses too."""

    def __init__(self, *pairs: Pair):
        self.pairs = nnx.List(pairs)
        self.first = pairs[0].conv

    def __call__(self, x: jax.Array) -> jax.Array:
        return sum(pair(x) for pair in self.pairs) + self.first(x)  # type: ignore[operator, return-value]


class Tied(nnx.Module):
    """Two convolutions with one kernel, one of them normalized."""

    def __init__(self, pair: Pair, other: Conv):
        self.pair, self.other = pair, other
        other.kernel = pair.conv.kernel  # type: ignore[attr-defined]

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.pair(x) + self.other(x)


def conv(channels: int = 6, kernel_size: Any = 3, **options: Any) -> Conv:
    return Conv(4, channels, kernel_size, rngs=nnx.Rngs(0), **options)


def same_conv_in_two_pairs() -> Elsewhere:
    shared = conv()
    return Elsewhere(Pair(conv(), 6), Pair(shared, 6), Pair(shared, 6))


# Module, and how many norms stay.
MODULES: dict[str, tuple[Callable[[], nnx.Module], int]] = {
    "bias": (lambda: Pair(conv(use_bias=True), 6), 0),
    "no bias": (lambda: Pair(conv(use_bias=False), 6), 0),
    "groups": (lambda: Pair(conv(groups=2), 6), 0),
    "depthwise": (lambda: Pair(conv(8, groups=4, padding="SAME"), 8), 0),
    "dilation": (lambda: Pair(conv(dilation=(1, 2), strides=(2, 1)), 6), 0),
    "transposed": (lambda: Pair(ConvTranspose(4, 6, 3, stride=2, padding=1, rngs=nnx.Rngs(0)), 6), 0),
    "transposed, no bias": (lambda: Pair(ConvTranspose(4, 6, 4, stride=2, use_bias=False, rngs=nnx.Rngs(0)), 6), 0),
    "no activation": (lambda: Pair(conv(), 6, activation=None, epsilon=0.1), 0),
    "gelu": (lambda: Pair(conv(), 6, activation="gelu"), 0),
    "two norms": (lambda: TwoNorms(conv(), 6), 2),
    "read elsewhere": (lambda: Elsewhere(Pair(conv(), 6), Pair(conv(), 6)), 1),
    "shared": (same_conv_in_two_pairs, 3),
    "tied": (lambda: Tied(Pair(conv(), 6), conv()), 0),
    "spectral norm": (lambda: Pair(SpectralNorm(conv(), rngs=nnx.Rngs(0)), 6), 1),
    "no convolution": (lambda: Pair(BatchNormAct(4, rngs=nnx.Rngs(0)), 4), 2),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules(name: str, rng: np.random.Generator) -> None:
    build, stay = MODULES[name]
    model = drawn(build, rng)
    folded = zoo.fold_batch_norm(model)
    assert count(folded, BatchNormAct) == stay
    assert count(folded, FoldedNorm) == count(model, BatchNormAct) - stay
    x = jnp.asarray(rng.normal(size=(2, 9, 8, 4)), jnp.float32)
    assert_close(call(folded, x), call(zoo.evaluation_view(model), x), CLOSE)
