"""The zoo's own names by the class of their models, for type checkers, and by family; tests hold both against the registry."""

from __future__ import annotations

from typing import Literal, get_args

ResNetName = Literal[
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "resnet20_cifar", "resnet32_cifar", "resnet44_cifar", "resnet56_cifar", "resnet110_cifar",
    "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2",
]  # fmt: skip
VGGName = Literal["vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"]
LanguageModelName = Literal["rnn_lm", "lstm_lm", "gru_lm"]
SequenceClassifierName = Literal["rnn_classifier", "lstm_classifier", "bilstm_classifier"]
GanName = Literal["gan_mlp", "dcgan"]

# Files under zoo/models/, and the names that each registers.
FAMILIES: dict[str, tuple[str, ...]] = {
    "alexnet": ("alexnet", "alexnet_original"),
    "gan": get_args(GanName),
    "googlenet": ("googlenet", "googlenet_original"),
    "lenet": ("lenet5", "lenet5_original"),
    "recurrent": (*get_args(LanguageModelName), *get_args(SequenceClassifierName), "bilstm_tagger"),
    "resnet": get_args(ResNetName),
    "vgg": get_args(VGGName),
}
