"""kernels.runtime.apart: a boundary that XLA's fusion does not cross, and that no transformation sees."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.max_pool import xla as pool
from kernels.runtime.apart import apart


def test_nothing_is_fused_across_it(rng: np.random.Generator) -> None:
    inner = lambda x: jnp.where(x > 0, jnp.exp(x), -x)  # a call of its own within, which is not kept apart
    x = jnp.asarray(rng.normal(size=(3, 5)))
    texts = {}
    for name, function in (("fused", inner), ("apart", apart(inner))):
        compiled = jax.jit(lambda x, function=function: function(x + 1) * 2).lower(x).compile()
        np.testing.assert_allclose(compiled(x), inner(x + 1) * 2, rtol=1e-6)  # the same operations, fused or not
        texts[name] = compiled.as_text()
    assert texts["fused"].count(" call(") == 0
    assert texts["apart"].count(" call(") == 1


def test_it_is_transparent_to_transformations(rng: np.random.Generator) -> None:
    function = lambda x: (x**3).sum(-1)
    x, dx = (jnp.asarray(rng.normal(size=(4, 3))) for _ in range(2))

    def transformed(f: Any) -> list[jax.Array]:
        gradient = jax.grad(lambda x: f(x).sum())(x)
        return jax.tree.leaves((f(x), jax.vmap(f)(x), jax.jvp(f, (x,), (dx,)), gradient, jax.hessian(f)(x[0])))

    for one, other in zip(transformed(function), transformed(apart(function)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_pools_of_few_channels_are_apart_on_a_cpu(rng: np.random.Generator) -> None:
    calls = {}
    for channels in (pool.VECTOR - 1, pool.VECTOR):
        x = jnp.asarray(rng.integers(0, 3, (2, 6, 6, channels)), jnp.float32)  # with ties
        both = lambda x: jax.value_and_grad(lambda x: (pool.by_position(x, (2, 2), (2, 2), ((0, 0), (0, 0))) ** 2).sum())(x)
        plain = jax.value_and_grad(lambda x: (pool.reduce_window(x, (2, 2), (2, 2), ((0, 0), (0, 0))) ** 2).sum())(x)
        compiled = jax.jit(both).lower(x).compile()
        for a, b in zip(compiled(x), plain, strict=True):
            np.testing.assert_array_equal(a, b)  # whole numbers: no rounding, and the first of equal ones in both
        calls[channels] = compiled.as_text().count(" call(")
    assert calls == {pool.VECTOR - 1: 2, pool.VECTOR: 0}


def test_without_jit_it_is_compiled_once(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[str] = []
    for name in ("maximum_and_position", "input_gradient"):
        inner = getattr(pool, name)
        counted = lambda *args, name=name, inner=inner, **options: traced.append(name) or inner(*args, **options)
        monkeypatch.setattr(pool, name, counted)
    pool._apart.cache_clear()
    gradient = jax.grad(lambda x: pool.by_position(x, (2, 2), (2, 2), ((0, 0), (0, 0))).sum())
    for _ in range(3):
        gradient(jnp.asarray(rng.normal(size=(2, 6, 6, 3)), jnp.float32))
    pool._apart.cache_clear()
    assert sorted(traced) == ["input_gradient", "maximum_and_position"]
