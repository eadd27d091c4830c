"""What every image model does alike: stages, classifiers, sizes, errors, and the figures in the registry."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import kernels
import zoo
from zoo.layers.norm import BatchNormAct
from zoo.models.resnet import BasicBlock, Bottleneck

ONE_OF_EACH = (
    "lenet5",
    "lenet5_original",
    "alexnet",
    "alexnet_original",
    "vgg11",
    "vgg11_bn",
    "resnet18",
    "resnet50",
    "resnet20_cifar",
    "googlenet",
    "googlenet_original",
)
# parameters and GMACs as published by torchvision 0.28 (its models' meta data); None where the paper's model is not there.
PUBLISHED = {
    "alexnet": (61_100_840, 0.714),
    "googlenet": (6_624_904, 1.498),
    "resnet18": (11_689_512, 1.814),
    "resnet34": (21_797_672, 3.664),
    "resnet50": (25_557_032, 4.089),
    "resnet101": (44_549_160, 7.801),
    "resnet152": (60_192_808, 11.514),
    "resnext50_32x4d": (25_028_904, 4.23),
    "resnext101_32x8d": (88_791_336, 16.414),
    "resnext101_64x4d": (83_455_272, 15.46),
    "vgg11": (132_863_336, 7.609),
    "vgg11_bn": (132_868_840, 7.609),
    "vgg13": (133_047_848, 11.308),
    "vgg13_bn": (133_053_736, 11.308),
    "vgg16": (138_357_544, 15.47),
    "vgg16_bn": (138_365_992, 15.47),
    "vgg19": (143_667_240, 19.632),
    "vgg19_bn": (143_678_248, 19.632),
    "wide_resnet50_2": (68_883_240, 11.398),
    "wide_resnet101_2": (126_886_696, 22.753),
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_figures(name: str) -> None:
    info = zoo.model_info(name)
    assert info.params == PUBLISHED[name][0]
    assert round(info.macs / 1e9, 3) == PUBLISHED[name][1]
    assert info.weights[0] == name


@pytest.mark.parametrize(
    "name",
    [
        "alexnet",
        "alexnet_original",
        "googlenet",
        "googlenet_original",
        "resnet18",
        "resnet20_cifar",
        "resnext50_32x4d",
        "vgg11_bn",
    ],
)
def test_registry_figures_are_counted(name: str) -> None:
    # The others of a family are the same code with other numbers; benchmarks/parity.py counts every one.
    info = zoo.model_info(name)
    options = {"aux_logits": False} if "googlenet" in name else {}
    model = nnx.eval_shape(lambda: zoo.create_model(name, **options))
    assert zoo.count_params(model) == info.params
    assert zoo.count_macs(model, info.input_shape) == info.macs


def shapes(name: str, x: tuple[int, ...], **options) -> dict[str, tuple[int, ...]]:
    model = nnx.eval_shape(lambda: zoo.create_model(name, **options))
    stages = nnx.eval_shape(lambda m, x: zoo.features(m, x), model, jnp.zeros(x))
    return {stage: value.shape for stage, value in stages.items()}


def test_stages() -> None:
    assert shapes("alexnet_original", (1, 224, 224, 3)) == {
        "pool1": (1, 27, 27, 96),
        "pool2": (1, 13, 13, 256),
        "conv3": (1, 13, 13, 384),
        "conv4": (1, 13, 13, 384),
        "pool5": (1, 6, 6, 256),
        "fc6": (1, 4096),
        "fc7": (1, 4096),
    }
    assert shapes("resnet50", (1, 97, 225, 3))["layer4"] == (1, 4, 8, 2048)
    assert shapes("resnet50", (1, 64, 64, 3), replace_stride_with_dilation=(False, True, True))["layer4"] == (1, 8, 8, 2048)
    assert shapes("googlenet", (2, 224, 224, 3))["inception4e"] == (2, 14, 14, 832)
    assert shapes("googlenet_original", (2, 224, 224, 3))["inception5b"] == (2, 7, 7, 1024)
    assert shapes("vgg16", (1, 100, 64, 1), in_channels=1)["block5"] == (1, 3, 2, 512)
    assert shapes("resnet20_cifar", (1, 31, 32, 3))["layer3"] == (1, 8, 8, 64)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_classes_and_reset(name: str) -> None:
    info = zoo.model_info(name)
    kwargs = {"in_channels": 2} if name != "lenet5_original" else {}

    def build() -> nnx.Module:
        model = zoo.create_model(name, num_classes=7, **kwargs)
        model.reset_classifier(3, rngs=nnx.Rngs(1))
        return model

    height, width, _ = info.input_shape
    x = jnp.zeros((2, height, width, kwargs.get("in_channels", info.input_shape[-1])))
    for view in (zoo.evaluation_view, zoo.training_view):
        output = nnx.eval_shape(lambda m, x: m(x), view(nnx.eval_shape(build)), x)
        assert {leaf.shape for leaf in jax.tree.leaves(output)} == {(2, 3)}


def test_bad_input_is_named() -> None:
    model = zoo.ResNet(BasicBlock, (1,), widths=(4,), cifar=True, num_classes=2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"x: shape \(2, 8, 8, 1\) given, \[batch, height, width, 3\]"):
        model(jnp.zeros((2, 8, 8, 1)))
    with pytest.raises(TypeError, match="x: dtype uint8 given"):
        model(jnp.zeros((2, 8, 8, 3), jnp.uint8))
    with pytest.raises(ValueError, match="at least 63"):
        nnx.eval_shape(lambda: zoo.create_model("alexnet")(jnp.zeros((1, 62, 224, 3))))
    with pytest.raises(ValueError, match="dropout: 2 given"):
        zoo.ResNet(BasicBlock, (1,), widths=(4,), dropout=2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"replace_stride_with_dilation: .* 3 flags"):
        zoo.create_model("resnet50", replace_stride_with_dilation=(True,))
    with pytest.raises(ValueError, match="transform_input: needs in_channels=3"):
        zoo.create_model("googlenet", transform_input=True, in_channels=1)


def test_zero_init_residual_starts_as_the_identity() -> None:
    block = lambda zero: zoo.ResNet(
        Bottleneck, (1, 1), widths=(8, 8), cifar=True, zero_init_residual=zero, num_classes=2, rngs=nnx.Rngs(0)
    )
    assert not block(True).layer2[0].bn3.scale[...].any()
    assert block(False).layer2[0].bn3.scale[...].all()


def test_stochastic_depth_rises_to_its_rate() -> None:
    model = nnx.eval_shape(lambda: zoo.create_model("resnet18", stochastic_depth=0.7))
    rates = [0.0 if b.drop_path is None else b.drop_path.rate for n in range(1, 5) for b in getattr(model, f"layer{n}")]
    np.testing.assert_allclose(rates, np.linspace(0, 0.7, 8))


@jax.jit
def start_of_original_alexnet() -> tuple[dict[str, jax.Array], jax.Array]:
    """Its biases, and one kernel: compiled, the 54 million weights of its dense layers are never drawn."""
    model = zoo.AlexNetOriginal(num_classes=2, rngs=nnx.Rngs(0))
    names = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc8")
    return {name: getattr(model, name).bias[...] for name in names}, model.conv3.kernel[...]


def test_original_alexnet_starts_as_in_the_paper() -> None:
    biases, kernel = start_of_original_alexnet()
    assert {name: float(bias.mean()) for name, bias in biases.items()} == {
        "conv1": 0, "conv2": 1, "conv3": 0, "conv4": 1, "conv5": 1, "fc6": 1, "fc8": 0,
    }  # fmt: skip
    assert abs(float(kernel.std()) - 0.01) < 1e-4  # of 884,736 draws


ONE_OF_EVERY_FAMILY = (
    *ONE_OF_EACH,
    "resnext50_32x4d",
    "rnn_classifier",
    "bilstm_tagger",
    "gru_lm",
    "lstm_lm",
    "gan_mlp",
    "dcgan",
)


def outputs(model: nnx.Module, name: str, batch: int) -> list[tuple[int, ...]]:
    """Shapes of what a model returns, and a GAN's discriminator for that."""
    info = zoo.model_info(name)
    ids = info.family == "recurrent" and len(info.input_shape) == 1
    x = jax.ShapeDtypeStruct((batch, *info.input_shape), jnp.int32 if ids else jnp.float32)
    run = lambda m, x: (m(x), m.discriminator(m(x))) if hasattr(m, "discriminator") else m(x)
    return [leaf.shape for leaf in jax.tree.leaves(nnx.eval_shape(run, model, x))]


@pytest.mark.parametrize("name", ONE_OF_EVERY_FAMILY)
def test_an_implementation_that_some_operator_lacks_is_fine(name: str) -> None:
    """No operator of these models has "cudnn" but the LSTM, which says why it cannot run it here."""
    build = lambda implementation: nnx.eval_shape(lambda: zoo.create_model(name, implementation=implementation))
    if "lstm" in name:
        with pytest.raises(kernels.ImplementationError, match="lstm cannot run 'cudnn' here"):
            outputs(build("cudnn"), name, 2)
    else:
        assert outputs(build("cudnn"), name, 2) == outputs(build(None), name, 2)


@pytest.mark.parametrize("name", ONE_OF_EVERY_FAMILY)
def test_an_empty_batch_in_training(name: str) -> None:
    """It has no statistics, which a model with batch normalization says; the others return nothing for nothing."""
    model = zoo.training_view(nnx.eval_shape(lambda: zoo.create_model(name)))
    if any(isinstance(module, BatchNormAct) for _, module in nnx.iter_modules(model)):
        with pytest.raises(ValueError, match=r"x: shape \(0, .* is an empty batch, batch normalization needs two values"):
            outputs(model, name, 0)
    else:
        assert outputs(model, name, 0) == [(0, *shape[1:]) for shape in outputs(model, name, 1)]
