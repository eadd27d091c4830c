"""A model's training step and inference as programs of JAX, all contenders from the same weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import kernels
import zoo
from experiments.comparison.models import ModelCase
from experiments.losses import cross_entropy
from kernels.recurrent.xla import unrolled

# Of the SGD update. So small that torch's model, which updates its weights in place, is the same after thousands of steps.
LEARNING_RATE = 1e-6
UNROLL = 8  # steps per iteration of XLA's loop
DONATED = (0, 1)  # parameters and other state
# Families whose own initialization dampens from layer to layer, until the logits are nearly the last bias whatever the input.
DAMPENED = ("lenet", "alexnet", "googlenet")


class Weights:
    """A case's model with its weights drawn once, in float32: what every contender starts from.

    Where the initialization dampens, kernels are scaled to the variance 2 / fan_in of He et al. 2015, with which the logits
    depend on the input, so that an error in any layer shows in them.
    """

    def __init__(self, case: ModelCase):
        self.case, self.model = case, case.build(jnp.float32)
        if case.family in DAMPENED:
            for path, node in nnx.iter_graph(self.model):
                if isinstance(node, nnx.Param) and path[-1] == "kernel":
                    kernel = node.get_value()
                    node.set_value(kernel * (math.sqrt(2 / math.prod(kernel.shape[:-1])) / jnp.std(kernel)))

    def split(self, precision: Any) -> tuple[Any, Any, Any]:
        """The structure of the model that computes in `precision`, its parameters and its other state.

        In training parameters are float32 whatever the precision; in inference they are held in it, as torch's are.
        """
        view = zoo.training_view if self.case.train else zoo.evaluation_view
        graph = zoo.split(view(nnx.eval_shape(lambda: self.case.build(precision))))[0]
        _, params, rest = zoo.split(view(self.model))
        if not self.case.train:
            params = jax.tree.map(lambda p: p.astype(precision), params)
        return graph, params, rest

    def bytes(self, itemsize: int) -> float:
        """The least that any version must move: each weight once, in training read and written in float32, and the inputs."""
        parameters = zoo.count_params(self.model)
        inputs = sum(math.prod(a.shape) * (4 if a.below else itemsize) for a in self.case.arrays())
        return parameters * (2 * 4 if self.case.train else itemsize) + inputs

    def torch_state_dict(self) -> dict[str, Any]:
        return zoo.to_torch_state_dict(self.model)


def loss_of(case: ModelCase, model: Any, x: jax.Array, target: jax.Array) -> jax.Array:
    """Cross-entropy; or the sum of a GAN's two losses, `target` the real images."""
    if case.family == "gan":
        real, fake = model.discriminator(target), model.discriminator(model(x))
        return jax.nn.softplus(-real).mean() + jax.nn.softplus(fake).mean()
    return cross_entropy(model(x), target)[0]


def program(case: ModelCase, graph: Any, implementation: str | None, unroll: int = 1) -> Callable[..., Any]:
    """A function of parameters, other state and inputs: to logits, or to loss, norm of the gradient, new parameters and state.

    A training step donates its first two arguments (`DONATED`), as in a training loop.
    """

    def infer(params: Any, rest: Any, x: jax.Array) -> jax.Array:
        return nnx.merge(graph, params, rest, copy=True)(x)

    def step(params: Any, rest: Any, x: jax.Array, target: jax.Array) -> Any:
        def loss(params: Any) -> tuple[jax.Array, Any]:
            model = nnx.merge(graph, params, rest, copy=True)
            return loss_of(case, model, x, target), zoo.split(model)[2]

        (value, new), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updated = jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, gradient)
        return value, optax.tree.norm(gradient), updated, new

    def scoped(*args: Any) -> Any:
        with kernels.use(implementation), unrolled(unroll):
            return (step if case.train else infer)(*args)

    return scoped
