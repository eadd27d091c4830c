"""The registry's names by the class of their models, for type checkers; a test holds them against the registry."""

from __future__ import annotations

from typing import Literal

ResNetName = Literal[
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "resnet20_cifar", "resnet32_cifar", "resnet44_cifar", "resnet56_cifar", "resnet110_cifar",
    "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2",
]  # fmt: skip
VGGName = Literal["vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"]
LanguageModelName = Literal["rnn_lm", "lstm_lm", "gru_lm"]
SequenceClassifierName = Literal["rnn_classifier", "lstm_classifier", "bilstm_classifier"]
GanName = Literal["gan_mlp", "dcgan"]
