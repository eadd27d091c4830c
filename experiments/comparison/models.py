"""Whole models to compare: a training step and inference, at the zoo's sizes and at those of the public benchmark."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

import kernels
import zoo


@dataclasses.dataclass(frozen=True)
class ModelCase:
    """A model at a batch size, in training or inference.

    Attributes:
      shape: of the input, batch included.
      options: further keywords of zoo.create_model.
      train: a training step (loss, gradients, SGD update) or inference.
      torch: the name in torchvision, or None where there is no such model.
    """

    model: str
    shape: tuple[int, ...]
    train: bool
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    torch: str | None = None

    @property
    def name(self) -> str:
        size = "x".join(map(str, self.shape))
        return f"{self.model} {size}, {'training step' if self.train else 'inference'}"


# KernelBench level 3: its networks and input sizes, forward only.
PUBLIC = [
    ModelCase("lenet5", (4096, 32, 32, 1), False),
    ModelCase("alexnet", (1024, 224, 224, 3), False, torch="alexnet"),
    ModelCase("googlenet", (10, 224, 224, 3), False, torch="googlenet"),
    ModelCase("resnet18", (2, 224, 224, 3), False, torch="resnet18"),
    ModelCase("resnet101", (10, 224, 224, 3), False, torch="resnet101"),
    ModelCase("vgg16", (10, 224, 224, 3), False, torch="vgg16"),
    ModelCase("vgg19", (10, 224, 224, 3), False, torch="vgg19"),
]


def model_cases(quick: bool, platform: str) -> list[ModelCase]:
    """What a GPU does in ten minutes, or two cores in as many."""
    if platform == "cuda":
        training = [
            ModelCase("lenet5", (4096, 32, 32, 1), True),
            ModelCase("alexnet", (512, 224, 224, 3), True, torch="alexnet"),
            ModelCase("alexnet_original", (256, 227, 227, 3), True),
            ModelCase("vgg16", (64, 224, 224, 3), True, torch="vgg16"),
            ModelCase("resnet50", (256, 224, 224, 3), True, torch="resnet50"),
            ModelCase("googlenet", (256, 224, 224, 3), True, torch="googlenet"),
        ]
        return training[:1] if quick else [*training, *PUBLIC]
    small = [
        ModelCase("lenet5", (128, 32, 32, 1), True),
        ModelCase("lenet5", (128, 32, 32, 1), False),
        ModelCase("resnet20_cifar", (32, 32, 32, 3), True),
        ModelCase("resnet18", (2, 224, 224, 3), False, torch="resnet18"),
        ModelCase("alexnet", (4, 224, 224, 3), False, torch="alexnet"),
        ModelCase("googlenet", (2, 224, 224, 3), False, torch="googlenet"),
        ModelCase("vgg16", (1, 224, 224, 3), False, torch="vgg16"),
    ]
    return small[:2] if quick else small


def jax_program(case: ModelCase, dtype: Any, implementation: str | None) -> tuple[Callable[..., Any], list[Any]]:
    """A jitted program of (parameters and state, images[, labels]) and its first argument."""
    model = zoo.create_model(case.model, dtype=dtype, **case.options)
    view = zoo.training_view(model) if case.train else zoo.evaluation_view(model)
    graph, params, rest = zoo.split(view)

    def scoped(fn: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            with kernels.use(implementation):
                return fn(*args)

        return jax.jit(call)

    if not case.train:
        return scoped(lambda state, x: nnx.merge(graph, *state, copy=True)(x)), [(params, rest)]

    def step(state: Any, x: jax.Array, labels: jax.Array) -> Any:
        params, rest = state

        def loss(params: Any) -> tuple[jax.Array, Any]:
            model = nnx.merge(graph, params, rest, copy=True)
            outputs = model(x)
            logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
            entropy = lambda scores: kernels.softmax_cross_entropy(scores, labels).mean()
            return entropy(logits) + 0.3 * sum(entropy(a) for a in auxiliary if a is not None), zoo.split(model)[2]

        (value, rest), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return value, optax.tree.norm(gradient), jax.tree.map(lambda p, g: p - 0.01 * g, params, gradient), rest

    return scoped(step), [(params, rest)]


def draw_inputs(case: ModelCase) -> Callable[[np.random.Generator], list[np.ndarray]]:
    """Images, and labels for a training step."""
    classes = zoo.model_info(case.model).num_classes

    def draw(rng: np.random.Generator) -> list[np.ndarray]:
        images = rng.standard_normal(case.shape, np.float32)
        return [images, rng.integers(0, classes, case.shape[0]).astype(np.int32)] if case.train else [images]

    return draw
