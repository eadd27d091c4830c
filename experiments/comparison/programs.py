"""A model's training step and inference as programs of JAX, all contenders from the same weights."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import kernels
import zoo
from experiments.comparison.contenders import UNROLL, WHILE_BUFFERS, leaves_to_numpy
from experiments.comparison.models import ModelCase
from experiments.comparison.timing import Contender
from kernels.recurrent.xla import unrolled

# Of the SGD update. So small that torch's model, which updates its weights in place, is the same after thousands of steps.
LEARNING_RATE = 1e-6
AUXILIARY = 0.3  # weight of GoogLeNet's further heads
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
    """Cross-entropy, with GoogLeNet's weights of its heads; or the sum of a GAN's two losses, `target` the real images."""
    if case.family == "gan":
        real, fake = model.discriminator(target), model.discriminator(model(x))
        return jax.nn.softplus(-real).mean() + jax.nn.softplus(fake).mean()
    outputs = model(x)
    logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
    entropy = lambda scores: kernels.softmax_cross_entropy(scores, target).mean()
    return entropy(logits) + AUXILIARY * sum(entropy(a) for a in auxiliary if a is not None)


def program(case: ModelCase, graph: Any, implementation: str | None, unroll: int = 1) -> Callable[..., Any]:
    """Of parameters, other state and inputs: logits; or loss, norm of the gradient, new parameters and state."""

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


def jax_contender(
    weights: Weights, precision: Any, implementation: str | None, unroll: int = 1, compiler_options: dict | None = None
) -> Contender:
    case = weights.case
    graph, *state = weights.split(precision)
    dtypes = [a.dtype(precision) for a in case.arrays()]
    state = jax.device_put(state)
    cast = lambda inputs: [jnp.asarray(x, dtype) for x, dtype in zip(inputs, dtypes, strict=True)]
    function = program(case, graph, implementation, unroll)
    to_numpy = lambda out: leaves_to_numpy(out[:2] if case.train else out)
    if case.train and kernels.device().platform == "cpu":
        # Weights are updated in place, as torch's are: fresh memory for them costs time on a CPU. On a GPU it does not, and the
        # profiler calls a program twice with the same arguments.
        return Contender(_carrying(jax.jit(function, donate_argnums=(0, 1)), state), prepare=cast, to_numpy=to_numpy)
    call = jax.jit(function, compiler_options=compiler_options)
    return Contender(call, prepare=lambda inputs: [*state, *cast(inputs)], to_numpy=to_numpy)


def _carrying(step: Callable[..., Any], state: list[Any]) -> Callable[..., Any]:
    """Loss and norm of the gradient; each call goes on from the weights of the one before."""
    carried = jax.tree.map(jnp.array, state)  # copies, since they are given away

    def call(*inputs: jax.Array) -> Any:
        loss, norm, *carried[:] = step(*carried, *inputs)
        return loss, norm

    return call


def model_contenders(weights: Weights, precision: str, peers: list[str]) -> dict[str, Callable[[], Contender]]:
    """XLA's code; on a GPU the kernels that the zoo chooses, and of recurrent models XLA's other forms; torch's twin."""
    case = weights.case
    found: dict[str, Callable[[], Contender]] = {"xla": lambda: jax_contender(weights, precision, "xla")}
    if kernels.device().platform == "cuda":
        found["zoo"] = lambda: jax_contender(weights, precision, None)
        if case.family == "recurrent":
            found["xla +WHILE"] = lambda: jax_contender(weights, precision, "xla", compiler_options=WHILE_BUFFERS)
            found[f"xla unroll {UNROLL}"] = lambda: jax_contender(weights, precision, "xla", UNROLL)
    for peer in peers:
        if peer != "flax" and case.has_twin:
            found[peer] = functools.partial(_torch_contender, weights, precision, peer == "torch.compile")
    return found


def _torch_contender(weights: Weights, precision: str, compiled: bool) -> Contender:
    from experiments.comparison.torch_models import torch_contender  # imports torch

    return torch_contender(weights, precision, compiled)


def model_reference(weights: Weights) -> list[np.ndarray]:
    """Loss and norm of the gradient, or logits, on the inputs of seed 0: XLA's, in float32 throughout."""
    exact = jax_contender(weights, jnp.float32, "xla")
    with jax.default_matmul_precision("highest"):
        return exact.to_numpy(exact.call(*exact.prepare(weights.case.draw(np.random.default_rng(0)))))
