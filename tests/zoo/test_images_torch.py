"""Images made ready for a model, beside torchvision's `weights.transforms()`; class names; predictions."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from experiments.peers.torch_vision import torchvision_models
from zoo.weights.published import imagenet_classes

SIZES = ((240, 320), (333, 257), (225, 231), (37, 53), (256, 1001), (500, 224))  # height, width


def transforms(name: str, version: str = "DEFAULT"):
    return torchvision_models().get_model_weights(name)[version].transforms()


def presets():
    torchvision_models()
    from torchvision.transforms._presets import ImageClassification

    return ImageClassification


def channels_last(tensor: torch.Tensor) -> np.ndarray:
    return tensor.numpy().transpose(1, 2, 0)


@pytest.mark.parametrize("name", [n for n in zoo.list_models() if zoo.model_info(n).weights])
def test_the_facts_are_torchvisions(name: str) -> None:
    info = zoo.model_info(name)
    assert info.preprocessing == info.preprocessing_for(name)
    for weights in info.weights[1:]:
        peer, ours = transforms(name, weights.partition(".")[2]), info.preprocessing_for(weights)
        assert ([ours.resize_size], list(ours.crop_size)) == (peer.resize_size, peer.crop_size * 2)
        assert (list(ours.mean), list(ours.std), ours.interpolation) == (peer.mean, peer.std, peer.interpolation.value)
        assert (
            list(imagenet_classes())
            == torchvision_models().get_model_weights(name)[weights.partition(".")[2]].meta["categories"]
        )
    # A model's own name stands for the newest.
    assert info.preprocessing == info.preprocessing_for(info.weights[-1])


@pytest.mark.parametrize("name", ["resnet50", "resnet50.IMAGENET1K_V1"])
@pytest.mark.parametrize("size", SIZES)
def test_eight_bits(name: str, size: tuple[int, int], rng: np.random.Generator, tmp_path: pathlib.Path) -> None:
    model, _, version = name.partition(".")
    peer = transforms(model, version or "DEFAULT")
    values = rng.integers(0, 256, (*size, 3), np.uint8)
    picture = Image.fromarray(values)
    picture.save(tmp_path / "a.png")
    expected = channels_last(peer(picture))
    for image in (values, picture, tmp_path / "a.png", str(tmp_path / "a.png")):
        found = zoo.preprocess(name, image)
        assert found.shape == (1, 224, 224, 3)
        # Pillow resizes on both sides; what is left is the rounding of float32.
        np.testing.assert_allclose(found[0], expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "P transparent", "1", "CMYK", "YCbCr"])
def test_modes(mode: str, rng: np.random.Generator, tmp_path: pathlib.Path) -> None:
    picture = Image.fromarray(rng.integers(0, 256, (233, 241, 4), np.uint8), "RGBA")
    if mode == "P transparent":
        picture = picture.convert("RGB").quantize(50)
        picture.info["transparency"] = bytes(range(50))
    elif mode != "RGBA":
        picture = picture.convert("RGB").convert(mode)
    expected = channels_last(
        transforms("resnet18")(picture.convert("RGBA").convert("RGB") if mode[0] == "P" else picture.convert("RGB"))
    )
    np.testing.assert_allclose(zoo.preprocess("resnet18", picture)[0], expected, atol=1e-6)
    suffix = "tiff" if mode in ("CMYK", "YCbCr") else "png"
    picture.save(tmp_path / f"a.{suffix}", **({"transparency": bytes(range(50))} if "transparent" in mode else {}))
    np.testing.assert_allclose(zoo.preprocess("resnet18", tmp_path / f"a.{suffix}")[0], expected, atol=1e-6)
    if mode in ("L", "RGBA"):
        np.testing.assert_array_equal(zoo.preprocess("resnet18", np.asarray(picture)), zoo.preprocess("resnet18", picture))


@pytest.mark.parametrize("size", SIZES)
def test_floats_and_sixteen_bits(size: tuple[int, int], rng: np.random.Generator, tmp_path: pathlib.Path) -> None:
    peer = transforms("resnet18")
    colours = rng.random((*size, 3), np.float32)
    # Torch's resizing of float32 is the reference. It rounds positions to float32, up to 6e-5 of a pixel at 1001, in both
    # directions, and the difference of two neighbours is up to 1 / 0.224. One step of 8 bits would be 0.017.
    expected = channels_last(peer(torch.from_numpy(colours.transpose(2, 0, 1))))
    np.testing.assert_allclose(zoo.preprocess("resnet18", colours)[0], expected, atol=5e-4)
    np.testing.assert_allclose(zoo.preprocess("resnet18", colours.astype(np.float64))[0], expected, atol=5e-4)

    grey = rng.integers(0, 65536, size, np.uint16)
    wide = torch.from_numpy(grey.astype(np.float32) / 65535).expand(3, *size)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    for image in (grey, Image.fromarray(grey), tmp_path / "grey.png", Image.fromarray(grey.astype(np.int32))):
        np.testing.assert_allclose(zoo.preprocess("resnet18", image)[0], channels_last(peer(wide)), atol=5e-4)


@pytest.mark.parametrize(("resize", "crop"), [(28, 33), (40, 33), (33, 33)])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_other_settings(resize: int, crop: int, interpolation: str, rng: np.random.Generator) -> None:
    from torchvision.transforms import InterpolationMode

    picture = Image.fromarray(rng.integers(0, 256, (61, 75, 3), np.uint8))
    mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    peer = presets()(crop_size=crop, resize_size=resize, mean=mean, std=std, interpolation=InterpolationMode(interpolation))
    ours = zoo.Preprocessing(resize, (crop, crop), interpolation, mean, std)  # type: ignore[arg-type]
    found = zoo.preprocess("lenet5", [picture, picture], preprocessing=ours)
    assert found.shape == (2, crop, crop, 3)
    np.testing.assert_allclose(found[1], channels_last(peer(picture)), atol=1e-6)


def test_grey_models_and_ranges(rng: np.random.Generator) -> None:
    ours = zoo.Preprocessing((32, 32), (32, 32), mean=(0.0,), std=(1.0,), value_range=(1.0, -1.0))
    values = rng.integers(0, 256, (45, 31, 3), np.uint8)
    grey = np.asarray(Image.fromarray(values).convert("L").resize((32, 32), Image.Resampling.BILINEAR))
    found = zoo.preprocess(zoo.create_model("lenet5"), values, preprocessing=ours)
    # Two roundings of float32 for values up to 1.
    np.testing.assert_allclose(found[0, ..., 0], 1 - grey / 127.5, atol=1e-6)
    floats = zoo.preprocess("lenet5", values.astype(np.float32) / 255, preprocessing=ours)
    # Of 8 bits Pillow rounds the grey, and the value after each of the two directions, to whole numbers: by half of one each.
    np.testing.assert_allclose(floats, found, atol=1.6 / 127.5)


def test_a_photograph_is_turned_as_it_says(rng: np.random.Generator, tmp_path: pathlib.Path) -> None:
    picture, exif = Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)), Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.png", exif=exif)
    expected = zoo.preprocess("resnet18", picture.transpose(Image.Transpose.ROTATE_270))
    np.testing.assert_array_equal(zoo.preprocess("resnet18", tmp_path / "turned.png"), expected)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("none.png", "none.png does not exist"),
        (np.zeros((4, 5, 2), np.uint8), r"uint8 \[4, 5, 2\] given, a path, a PIL image or an array"),
        (np.zeros((0, 5, 3), np.uint8), r"uint8 \[0, 5, 3\] given"),
        (np.zeros((4, 5), np.int32), r"int32 \[4, 5\] given, uint8, uint16 or a floating-point type"),
        (np.full((4, 5), 255.0), r"with values from 255 to 255 given, 0 to 1"),
        (np.full((4, 5), np.nan), r"with values from nan to nan given, 0 to 1"),
        ([], "an empty list given"),
        (None, "NoneType given, a path"),
        (Image.fromarray(np.full((4, 5), -1, np.int32)), "mode I given .*values from -1 to -1"),
    ],
)  # fmt: skip
def test_bad_images(image: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^image: .*{message}"):
        zoo.preprocess("resnet18", image)


def test_a_damaged_file_and_missing_facts(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"^image: .*a.png cannot be read as an image"):
        zoo.preprocess("resnet18", tmp_path / "a.png")
    image = np.zeros((9, 9), np.uint8)
    for model in ("lenet5", zoo.create_model("lenet5"), zoo.create_model("resnet18", in_channels=1)):
        with pytest.raises(ValueError, match="preprocessing: needed, since"):
            zoo.preprocess(model, image)
    with pytest.raises(ValueError, match=r"weights: 'resnet18.IMAGENET1K_V2' given, resnet18 has resnet18, resnet18.IMAGENET"):
        zoo.preprocess("resnet18.IMAGENET1K_V2", image)
    for wrong, message in (
        ({"resize_size": 0}, "resize_size: 0"), ({"crop_size": 224}, "crop_size: 224"), ({"std": (1.0, 0.0, 1.0)}, "std"),
        ({"mean": (0.0, 0.0)}, "mean: .* 1 or 3 numbers"), ({"interpolation": "box"}, "interpolation: 'box' given"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            zoo.Preprocessing(**{"resize_size": 256, "crop_size": (224, 224)} | wrong)
