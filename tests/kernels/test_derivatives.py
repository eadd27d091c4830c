"""A hand-written gradient beside a plain function: every derivative is there, and each comes from where it must."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kernels.runtime.derivatives import differentiable

SEEN: list[str] = []


def plain(tree, b, index):
    SEEN.append("plain")
    return {"y": jnp.sin(tree["a"]) * b + index, "z": jnp.sum(b**3)}


def forward(tree, b, index):
    SEEN.append("forward")
    return {"y": jnp.sin(tree["a"]) * b + index, "z": jnp.sum(b**3)}, (tree["a"], jnp.cos(tree["a"]), b, jnp.uint8(3))


def backward(kept, ct):
    SEEN.append("backward")
    a, cosine, b, _ = kept
    return {"a": ct["y"] * cosine * b}, ct["y"] * jnp.sin(a) + 3 * b**2 * ct["z"], None


hand = differentiable(plain, forward, backward)
A, B, INDEX = jnp.array([0.3, -1.2, 2.0]), jnp.array([1.5, 0.2, -0.7]), jnp.array([1, 2, 3])
fn = lambda a, b: hand({"a": a}, b, INDEX)
reference = lambda a, b: plain({"a": a}, b, INDEX)


def assert_equal(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6), found, expected)


def test_the_first_gradient_is_the_hand_written_one():
    SEEN.clear()
    found = jax.grad(lambda a, b: fn(a, b)["y"].sum(), argnums=(0, 1))(A, B)
    assert SEEN == ["forward", "backward"]
    assert_equal(found, jax.grad(lambda a, b: reference(a, b)["y"].sum(), argnums=(0, 1))(A, B))
    SEEN.clear()
    fn(A, B)
    assert SEEN == ["forward"]


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint], ids=["eager", "jit", "checkpoint"])
def test_every_derivative_is_that_of_the_plain_function(wrap):
    hand_made, other = wrap(fn), reference
    square = lambda f: lambda a, b: jnp.sum(f(a, b)["y"] ** 2) + f(a, b)["z"]
    gradient = lambda f: jax.grad(square(f), argnums=(0, 1))
    for derive in (
        lambda f: jax.jvp(f, (A, B), (B, A)),
        lambda f: jax.jacfwd(f, argnums=(0, 1))(A, B),
        lambda f: jax.jacrev(f, argnums=(0, 1))(A, B),
        lambda f: gradient(f)(A, B),
        lambda f: jax.jvp(gradient(f), (A, B), (B, A)),
        lambda f: jax.grad(lambda a, b: sum(jnp.sum(g**2) for g in gradient(f)(a, b)))(A, B),
        lambda f: jax.hessian(square(f), argnums=(0, 1))(A, B),
        lambda f: jax.jacfwd(jax.jacfwd(square(f)))(A, B),
        lambda f: jax.linear_transpose(jax.linearize(f, A, B)[1], A, B)(f(A, B)),
        lambda f: jax.vmap(gradient(f), (0, None))(jnp.stack([A, B]), B),
        lambda f: jax.vmap(gradient(f), (None, 0))(A, jnp.stack([A, B])),
        lambda f: jax.grad(lambda a: jnp.sum(jax.vmap(square(f), (0, None))(a, B)))(jnp.stack([A, B])),
        lambda f: jax.grad(lambda b: jnp.sum(jax.vmap(square(f), (0, None))(jnp.stack([A, B]), b)))(B),
        lambda f: jax.jit(jax.vmap(lambda t: jax.jvp(f, (A, B), (t, t))))(jnp.stack([A, B])),
    ):
        assert_equal(derive(hand_made), derive(other))


def test_by_numbers():
    with jax.enable_x64(True):
        args = [jnp.asarray(np.asarray(a, np.float64)) for a in (A, B)]
        check_grads(lambda a, b: hand({"a": a}, b, INDEX), args, order=3, modes=("fwd", "rev"))


def test_inside_a_scan_and_of_some_arguments():
    def total(f, a):
        carry, _ = jax.lax.scan(lambda c, _: (f(c, B)["y"] * 0.1, None), a, None, length=3)
        return jnp.sum(carry)

    for derive in (lambda f: jax.grad(total, argnums=1)(f, A), lambda f: jax.jvp(lambda a: total(f, a), (A,), (B,))[1]):
        assert_equal(derive(fn), derive(reference))


@pytest.mark.parametrize("order", list(itertools.permutations(["jvp", "vmap", "grad"])))
def test_transformations_in_every_order(order):
    def wrapped(f):
        g = lambda a: jnp.sum(f(a, B)["y"] ** 2)
        for name in order:
            before = g
            if name == "grad":
                g = lambda a, before=before: jax.grad(lambda a: jnp.sum(before(a)))(a)
            elif name == "jvp":
                g = lambda a, before=before: jax.jvp(before, (a,), (jnp.cos(a),))[1]
            else:
                g = lambda a, before=before: jax.vmap(before)(jnp.stack([a, 2 * a]))
        return g(A)

    assert_equal(wrapped(fn), wrapped(reference))
