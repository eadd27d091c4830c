"""Weights that torchvision publishes: file names, each with the first eight hex digits of its sha256, and what they read."""

from __future__ import annotations

import functools
import pathlib

from zoo.preprocessing import Preprocessing, imagenet

# model -> (first version, second version or None), as torchvision 0.28 lists them (IMAGENET1K_V1 and _V2). A model's own name
# stands for the newest.
_FILES: dict[str, tuple[str | None, str | None]] = {
    "alexnet": ("alexnet-owt-7be5be79", None),
    "googlenet": ("googlenet-1378be20", None),
    "resnet18": ("resnet18-f37072fd", None),
    "resnet34": ("resnet34-b627a593", None),
    "resnet50": ("resnet50-0676ba61", "resnet50-11ad3fa6"),
    "resnet101": ("resnet101-63fe2227", "resnet101-cd907fc2"),
    "resnet152": ("resnet152-394f9c45", "resnet152-f82ba261"),
    "resnext50_32x4d": ("resnext50_32x4d-7cdf4587", "resnext50_32x4d-1a0047aa"),
    "resnext101_32x8d": ("resnext101_32x8d-8ba56ff5", "resnext101_32x8d-110c445d"),
    "resnext101_64x4d": ("resnext101_64x4d-173b62eb", None),
    "vgg11": ("vgg11-8a719046", None),
    "vgg11_bn": ("vgg11_bn-6002323d", None),
    "vgg13": ("vgg13-19584684", None),
    "vgg13_bn": ("vgg13_bn-abd245e5", None),
    "vgg16": ("vgg16-397923af", None),
    "vgg16_bn": ("vgg16_bn-6c64b313", None),
    "vgg19": ("vgg19-dcbb9e9d", None),
    "vgg19_bn": ("vgg19_bn-c79401a0", None),
    "wide_resnet50_2": ("wide_resnet50_2-95faca4d", "wide_resnet50_2-9ba9bcbe"),
    "wide_resnet101_2": ("wide_resnet101_2-32ee1156", "wide_resnet101_2-d733dc28"),
}
# Files made by torchvision's newer recipe, which brings the shorter side to 232 pixels before the middle is cut out: all second
# versions, and this one. All others: 256.
_NEWER_RECIPE = ("resnext101_64x4d-173b62eb",)


def published(model: str) -> tuple[str, ...]:
    """Names for "torchvision://NAME" of the weights published for a model: its own, and one per version."""
    versions = [f"{model}.IMAGENET1K_V{number}" for number, file in enumerate(_FILES.get(model, ()), 1) if file]
    return (model, *versions) if versions else ()


def file_of(name: str) -> str:
    """The file name, "resnet50-11ad3fa6.pth", of a name such as "resnet50", "resnet50.IMAGENET1K_V1" or "resnet50-11ad3fa6".

    Raises:
      ValueError: torchvision publishes no such weights.
    """
    model, _, version = name.partition(".")
    files = [file for file in _FILES.get(model, ()) if file]
    if not version and files:
        return files[-1] + ".pth"
    if version in ("IMAGENET1K_V1", "IMAGENET1K_V2"):
        file = _FILES.get(model, (None, None))[int(version[-1]) - 1]
        if file:
            return file + ".pth"
    if any(name in entry for entry in _FILES.values()):
        return name + ".pth"
    known = ", ".join(sum((published(model) for model in _FILES), ()))
    raise ValueError(f"source: torchvision publishes no weights {name!r}; it has {known}")


def preprocessing_of(name: str) -> Preprocessing:
    """What the weights of a name that `file_of` knows were published with.

    Raises:
      ValueError: torchvision publishes no such weights.
    """
    file = file_of(name).removesuffix(".pth")
    newer = file in _NEWER_RECIPE or any(file == second for _, second in _FILES.values())
    return imagenet(232 if newer else 256)


def is_published(file: str) -> bool:
    """Whether a file of weights has the name of one that torchvision publishes."""
    return any(file == f"{name}.pth" for names in _FILES.values() for name in names if name)


@functools.cache
def imagenet_classes() -> tuple[str, ...]:
    """The names of ImageNet's 1,000 classes in the order of the labels, as torchvision 0.28's weights state them (`meta`)."""
    return tuple((pathlib.Path(__file__).parents[1] / "imagenet_classes.txt").read_text("utf-8").splitlines())
