"""Whole models to compare: a training step and inference, at the zoo's sizes and at those of the public benchmark."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import zoo
from experiments.comparison.case import Array
from zoo.layers import initializers
from zoo.models.resnet import BasicBlock

BLOCK = "basic_block"  # the one case that is no model of the registry: 3 to 64 channels, with a 1x1 shortcut
VGGS, RESNETS = zoo.list_models("vgg*"), ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
WIDE = ["resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"]
TORCHVISION = ["alexnet", "googlenet", *RESNETS, *WIDE, *VGGS]
# Batch of a GPU by pattern of the name; what one H200 trains on in float32 too, for the reference.
BATCH = {"lenet*": 4096, "alexnet*": 512, "gan_mlp": 4096, "vgg*": 64, "resne?t101*": 64, "*152": 64, "wide*": 64, "*_lm": 64}


@dataclasses.dataclass(frozen=True)
class ModelCase:
    """A model at a batch size, in training (loss, gradients, SGD update) or inference.

    Attributes:
      model: a name of the registry, or "basic_block".
      shape: of the input, batch included.
      label: where the case comes from, if not from the zoo.
      precision: in which the case's figures were published; None for that of the run.
      folded: whether each batch norm is part of the convolution before it (`zoo.fold_batch_norm`); inference only.
    """

    model: str
    shape: tuple[int, ...]
    train: bool
    label: str = ""
    precision: str | None = None
    folded: bool = False

    @property
    def name(self) -> str:
        size = "x".join(map(str, self.shape))
        mode = "training step" if self.train else "inference, batch norm folded" if self.folded else "inference"
        return f"{self.model} {self.label}{' ' if self.label else ''}{size}, {mode}"

    @property
    def family(self) -> str:
        return "resnet" if self.model == BLOCK else zoo.model_info(self.model).family

    @property
    def has_twin(self) -> bool:
        """Whether torch or torchvision has the same network."""
        return not self.folded and (self.model in (*TORCHVISION, "lenet5", BLOCK) or self.family == "recurrent")

    def build(self, dtype: Any) -> nnx.Module:
        """The model; without dropout, so that its loss is the same for every contender."""
        if self.model == BLOCK:
            ones = initializers.ones
            return BasicBlock(
                3, 64, scale_init=ones, dtype=dtype, param_dtype=jnp.float32, implementation=None, rngs=nnx.Rngs(0)
            )
        options: dict[str, Any] = {}
        if self.family in ("alexnet", "vgg", "googlenet"):
            options["dropout"] = 0.0
        if self.family == "googlenet":
            options["dropout_aux"] = 0.0
        model = zoo.create_model(self.model, dtype=dtype, rngs=0, **options)
        return zoo.fold_batch_norm(model) if self.folded else model

    def arrays(self) -> tuple[Array, ...]:
        """The inputs: images, sequences, token ids or latent vectors; in training labels too, of a GAN real images."""
        if self.family == "recurrent" and len(self.shape) == 2:
            inputs = Array(self.shape, below=98)
        else:
            inputs = Array(self.shape)
        if not self.train:
            return (inputs,)
        output = _output(self)
        if self.family == "gan":
            return inputs, Array(output.shape)
        return inputs, Array(output.shape[:-1], below=output.shape[-1])

    def draw(self, rng: np.random.Generator) -> list[np.ndarray]:
        return [a.draw(rng) for a in self.arrays()]

    def flops(self) -> float | None:
        """Of convolutions and matrix products, three times as many in training; None for a GAN, whose parts run repeatedly."""
        if self.family == "gan":
            return None
        if self.model == BLOCK:
            macs = math.prod(self.shape[1:3]) * (9 * 3 * 64 + 9 * 64 * 64 + 3 * 64)
        elif self.shape[1:] == zoo.model_info(self.model).input_shape:
            macs = zoo.model_info(self.model).macs
        else:
            model = nnx.eval_shape(lambda: self.build(jnp.float32))
            macs = zoo.count_macs(model, self.shape[1:], self.arrays()[0].dtype(jnp.float32))
        return 2.0 * macs * self.shape[0] * (3 if self.train else 1)


@functools.cache
def _output(case: ModelCase) -> jax.ShapeDtypeStruct:
    """The output of the model in evaluation."""
    graph, state = nnx.split(zoo.evaluation_view(nnx.eval_shape(lambda: case.build(jnp.float32))))
    x = dataclasses.replace(case, train=False).arrays()[0]
    return jax.eval_shape(
        lambda state, x: nnx.merge(graph, state)(x), state, jax.ShapeDtypeStruct(x.shape, x.dtype(jnp.float32))
    )


def _public(model: str, shape: tuple[int, ...]) -> ModelCase:
    """KernelBench level 3: its networks and input sizes, forward only."""
    return ModelCase(model, shape, False, "public benchmark", "float32")


PUBLIC = [
    _public("lenet5", (4096, 32, 32, 1)),
    _public("alexnet", (1024, 224, 224, 3)),
    _public("googlenet", (10, 224, 224, 3)),
    _public(BLOCK, (10, 224, 224, 3)),
    _public("resnet18", (2, 224, 224, 3)),
    _public("resnet101", (10, 224, 224, 3)),
    _public("vgg16", (10, 224, 224, 3)),
    _public("vgg19", (10, 224, 224, 3)),
]
FIRST = ["lenet5", "alexnet", "alexnet_original", "vgg16", "resnet50", "googlenet", "googlenet_original"]
FOLDED = ["resnet50", "resnet18", "vgg16_bn", "googlenet"]
OTHERS = ["gan_mlp", "dcgan", "lstm_lm", "gru_lm", "rnn_lm", "bilstm_tagger", "bilstm_classifier", "resnet20_cifar"]


def zoo_case(model: str, train: bool, batch: int | None = None) -> ModelCase:
    """A model of the registry at its own input size, with the batch of a GPU if none is given."""
    found = [size for pattern, size in BATCH.items() if fnmatch.fnmatch(model, pattern)]
    return ModelCase(model, (batch or [*found, 256][0], *zoo.model_info(model).input_shape), train)


def model_cases(quick: bool, platform: str) -> list[ModelCase]:
    """On a GPU every model, the most interesting first; on a CPU what two cores can do in ten minutes."""
    if platform == "cuda":
        training = [zoo_case(model, True) for model in FIRST]
        rest = [m for m in (*OTHERS, *TORCHVISION) if m not in FIRST]
        both = [zoo_case(model, train) for model in rest for train in (True, False)]
        inference = [zoo_case(model, False) for model in FIRST]
        folded = [dataclasses.replace(zoo_case(model, False), folded=True) for model in FOLDED]
        return training[:1] if quick else [*training, *PUBLIC, *both, *inference, *folded]
    small = [
        zoo_case("lenet5", True, 128),
        zoo_case("lenet5", False, 128),
        zoo_case("lstm_lm", True, 16),
        zoo_case("lstm_lm", False, 16),
        zoo_case("gan_mlp", True, 128),
        ModelCase("resnet18", (8, 64, 64, 3), True),
        ModelCase("alexnet", (8, 96, 96, 3), True),
        ModelCase("googlenet", (4, 64, 64, 3), True),
        _public("resnet18", (2, 224, 224, 3)),
        ModelCase("alexnet", (4, 224, 224, 3), False),
        ModelCase("googlenet", (2, 224, 224, 3), False),
        ModelCase("vgg16", (1, 224, 224, 3), False),
        ModelCase("resnet50", (1, 224, 224, 3), False),
        ModelCase(BLOCK, (1, 224, 224, 3), False),
    ]
    return small[:3] if quick else small
