"""Forward mode and Hessian-vector products through a model of each family, in float64.

jax.jvp goes through the reference of each operator, jax.vjp through the gradient written for it, and finite differences through
neither: a directional derivative has to be the same in all three.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from zoo.layers.linear import Linear
from zoo.models.resnet import BasicBlock

# Two ways to the same sum in float64, relative to the largest that it can be: they are up to 6e-16 apart.
ROUNDING = 1e-13
# The error of central differences is about the square of the step, and a rounding over it, 1e-16 / STEP: found is up to 1e-9.
# That holds as long as no ReLU and no maximum turns within the step, which with these draws none does.
STEP, DIFFERENCES = 1e-6, 1e-7


def with_narrow_classifier(make: Callable[[], nnx.Module], flattened: tuple[int, int, int]) -> nnx.Module:
    """A model with 8 units in each dense layer in the place of 4096, which are never allocated."""
    model = nnx.eval_shape(make)
    for name, inputs, options in (
        ("fc6", int(np.prod(flattened)), {"activation": "relu", "flattened": flattened}),
        ("fc7", 8, {"activation": "relu"}),
        ("fc8", 8, {}),
    ):
        setattr(model, name, Linear(inputs, 8, rngs=nnx.Rngs(0), **options))
    return model


def alexnet() -> nnx.Module:
    return with_narrow_classifier(lambda: zoo.AlexNet(dropout=0.0, rngs=nnx.Rngs(0)), (6, 6, 256))


def vgg() -> nnx.Module:
    make = lambda: zoo.VGG((1, 1, 1, 1, 1), batch_norm=True, dropout=0.0, rngs=nnx.Rngs(0))
    return with_narrow_classifier(make, (7, 7, 512))


def resnet() -> nnx.Module:
    return zoo.ResNet(BasicBlock, (1, 1), widths=(4, 8), num_classes=5, stochastic_depth=0.5, rngs=nnx.Rngs(0))


def created(name: str, part: str | None = None, **options: Any) -> nnx.Module:
    model = zoo.create_model(name, rngs=0, **options)
    return model if part is None else getattr(model, part)


SMALL_GAN = {"latent_size": 5, "image_size": 8}
DCGAN = {"generator_width": 4, "discriminator_width": 4} | SMALL_GAN
# A model and the shape of its input; of tokens where there is an embedding.
MODELS: dict[str, tuple[Callable[[], nnx.Module], tuple[int, ...]]] = {
    "lenet5": (functools.partial(created, "lenet5"), (2, 32, 32, 1)),
    "alexnet": (alexnet, (2, 63, 67, 3)),
    "vgg": (vgg, (2, 33, 35, 3)),
    "resnet": (resnet, (3, 19, 17, 3)),
    "googlenet": (functools.partial(created, "googlenet", num_classes=5, aux_logits=False), (2, 33, 31, 3)),
    "rnn": (functools.partial(created, "rnn_classifier", hidden_size=7), (3, 5, 32)),
    "lstm": (functools.partial(created, "bilstm_tagger", num_classes=4, hidden_size=6), (2, 5)),
    "gru": (functools.partial(created, "gru_lm", num_classes=9, hidden_size=7, num_layers=2, dropout=0.2), (2, 6)),
    "gan_mlp generator": (functools.partial(created, "gan_mlp", "generator", hidden=9, **SMALL_GAN), (3, 5)),
    "gan_mlp discriminator": (functools.partial(created, "gan_mlp", "discriminator", hidden=9, **SMALL_GAN), (3, 8, 8, 1)),
    "dcgan generator": (functools.partial(created, "dcgan", "generator", **DCGAN), (3, 5)),
    "dcgan discriminator": (functools.partial(created, "dcgan", "discriminator", **DCGAN), (3, 8, 8, 3)),
}

# In its small maps the statistics of a batch are of a few values: that makes a function too sharp for finite differences.
EVALUATED = ("googlenet",)


def drawn(rng: np.random.Generator, path: Any, kind: Any) -> jax.Array:
    """A parameter such that values neither grow nor vanish from layer to layer."""
    values = rng.standard_normal(kind.shape)
    if len(kind.shape) > 1:
        return jnp.asarray(values * (2 / np.prod(kind.shape[:-1])) ** 0.5)
    return jnp.asarray(0.1 * values + (path[-1].key == "scale"))


def function(name: str, rng: np.random.Generator) -> tuple[Callable[[Any], jax.Array], Any]:
    """The model as a function of its parameters and, where that is not of tokens, its input; and arguments for it."""
    make, shape = MODELS[name]
    params, state, apply = zoo.functional(make())
    params = jax.tree.map_with_path(functools.partial(drawn, rng), params)
    state = jax.tree.map_with_path(lambda path, kind: jnp.full(kind.shape, path[-1].key == "var", kind.dtype), state)
    if "embedding" in params:
        tokens = jnp.asarray(rng.integers(0, params["head"]["kernel"].shape[-1], shape))
        arguments, given = {"params": params}, lambda arguments: tokens
    else:
        arguments = {"params": params, "x": jnp.asarray(rng.standard_normal(shape))}
        given = lambda arguments: arguments["x"]

    def fn(arguments: Any) -> jax.Array:
        outputs, _ = apply(arguments["params"], state, given(arguments), train=name not in EVALUATED, rngs=jax.random.key(0))
        return outputs

    return fn, arguments


def random_like(rng: np.random.Generator, tree: Any) -> Any:
    """A direction in which each array moves as much as it is large."""
    return jax.tree.map(lambda a: jnp.asarray(rng.standard_normal(a.shape)) * jnp.sqrt(jnp.mean(a**2)), tree)


def inner(a: Any, b: Any) -> float:
    return float(sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)))


def norm(a: Any) -> float:
    return inner(a, a) ** 0.5


def along(fn: Callable[[Any], Any], at: Any, direction: Any) -> Any:
    """The derivative by central differences."""
    high, low = (fn(jax.tree.map(lambda a, d, s=s: a + s * STEP * d, at, direction)) for s in (1, -1))
    return jax.tree.map(lambda high, low: (high - low) / (2 * STEP), high, low)


def difference(a: Any, b: Any) -> float:
    return norm(jax.tree.map(jnp.subtract, a, b))


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "googlenet" else n for n in MODELS])
def test_forward_mode(name, rng):
    with jax.enable_x64(True):
        fn, at = function(name, rng)
        u = random_like(rng, at)
        y, moved = jax.jit(lambda at, u: jax.jvp(fn, (at,), (u,)))(at, u)
        assert y.dtype == moved.dtype == jnp.float64
        v = jnp.asarray(rng.standard_normal(y.shape))
        (pulled,) = jax.jit(lambda at, v: jax.vjp(fn, at)[1](v))(at, v)
        assert abs(inner(v, moved) - inner(pulled, u)) < ROUNDING * norm(v) * norm(moved)
        assert difference(moved, along(jax.jit(fn), at, u)) < DIFFERENCES * norm(moved)


@pytest.mark.parametrize("name", ["lenet5", "resnet", "lstm", "gru", "gan_mlp discriminator", "dcgan discriminator"])
def test_hessian_vector_product(name, rng):
    with jax.enable_x64(True):
        fn, at = function(name, rng)
        gradient = jax.jit(jax.grad(lambda at: jnp.sum(jnp.square(fn(at)))))
        product = jax.jit(lambda at, u: jax.jvp(gradient, (at,), (u,))[1])
        u, v = random_like(rng, at), random_like(rng, at)
        of_u, of_v = product(at, u), product(at, v)
        assert abs(inner(v, of_u) - inner(u, of_v)) < ROUNDING * norm(v) * norm(of_u)
        assert difference(of_u, along(gradient, at, u)) < DIFFERENCES * norm(of_u)
