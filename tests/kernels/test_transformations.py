"""Every operator with a Triton kernel under JAX's transformations, on empty batches and on one row, beside plain JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from tests.kernels.checking import HAND, assert_close, normal

CONVOLUTIONS = ((5, 5, 1, 6), (5, 5, 6, 16))
LENET5 = (*CONVOLUTIONS, (400, 120), (120, 84), (84, 10))


def batch_norm(x, **options):
    return kernels.batch_norm_act(x, normal(1, (8,)), normal(2, (8,)), activation="tanh", **options)[0]


def running(x, **options):
    return kernels.batch_norm_act_running(x, normal(1, (8,)), normal(2, (8,)), jnp.zeros(8), jnp.ones(8), x, **options)[0]


def linear(x, **options):
    return kernels.linear_act(x, normal(1, (6, 5), x.dtype), normal(2, (5,)), "tanh", **options)


def loss(x, **options):
    return kernels.softmax_cross_entropy(x, jnp.arange(x.shape[0]) % 6, 0.1, **options)


def mlp(x, **options):
    weights = [normal(1, (6, 5), x.dtype), normal(2, (5, 4), x.dtype)]
    return kernels.mlp(x, weights, [jnp.ones(5), jnp.ones(4)], "tanh", **options)


def lenet5(x, **options):
    weights = [normal(i, shape, x.dtype, scale=np.prod(shape[:-1]) ** -0.5) for i, shape in enumerate(LENET5)]
    return kernels.lenet5(x, weights, [normal(9 + i, shape[-1:]) for i, shape in enumerate(LENET5)], **options)


# the operator and the shape of one example
OPERATORS = {
    "max_pool": (lambda x, **options: kernels.max_pool(x, 3, 2, "SAME", **options), (5, 5, 3)),
    "local_response_norm": (lambda x, **options: kernels.local_response_norm(x, alpha=0.1, **options), (3, 7)),
    "batch_norm_act": (batch_norm, (3, 8)),
    "running": (running, (3, 8)),
    "linear_act": (linear, (6,)),
    "softmax_cross_entropy": (loss, (6,)),
    "mlp": (mlp, (6,)),
    "lenet5": (lenet5, (32, 32, 1)),
}


def value_and_gradient(operator, implementation):
    def total(x):
        y = OPERATORS[operator][0](x, implementation=implementation)
        return jnp.sum(jnp.sin(y.astype(jnp.float32))), y

    def both(x):
        gradient, y = jax.grad(jax.checkpoint(total), has_aux=True)(x)
        return y, gradient

    return both


def assert_same(hand, expected):
    for h, e in zip(hand, expected, strict=True):
        assert h.dtype == e.dtype
        assert_close(h, e, 1e-5, "value or gradient")  # in float32: a few roundings, in another order


@pytest.mark.parametrize("implementation", HAND)
@pytest.mark.parametrize(
    "operator", [pytest.param(name, marks=[pytest.mark.slow] if name == "lenet5" else []) for name in OPERATORS]
)
def test_vmap_scan_and_remat(operator, implementation):
    """Inside jit; by vmap twice over, an axis of which may be empty, as the batch may."""
    x = normal(0, (2, 2, *OPERATORS[operator][1]))
    hand, plain = value_and_gradient(operator, implementation), value_and_gradient(operator, "xla")
    with jax.default_matmul_precision("highest"):
        expected = jax.jit(lambda x: jax.lax.map(plain, x))(x)
        assert_same(jax.jit(jax.vmap(hand))(x), expected)
        assert_same(jax.jit(lambda x: jax.lax.scan(lambda carry, part: (carry, hand(part)), 0, x)[1])(x), expected)
    for empty in (x[:0], x[:, :0]):
        shapes = jax.eval_shape(jax.vmap(plain), empty)
        assert [(a.shape, a.dtype) for a in jax.vmap(hand)(empty)] == [(a.shape, a.dtype) for a in shapes]


@pytest.mark.parametrize("implementation", HAND)
@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("operator", OPERATORS)
def test_an_empty_batch_and_one_row(operator, rows, implementation):
    x = normal(0, (rows, *OPERATORS[operator][1]))
    with jax.default_matmul_precision("highest"):
        hand, expected = (jax.jit(value_and_gradient(operator, i))(x) for i in (implementation, "xla"))
    assert_same(hand, expected)
