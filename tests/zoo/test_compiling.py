"""zoo.compiler_options: accepted by the compiler, obeyed, and without effect on results beyond rounding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import zoo
from zoo import compiling


def test_convolutions_are_taken_from_ynnpack_and_nothing_else(rng) -> None:
    x, w = (jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in ((8, 16, 16, 64), (3, 3, 64, 64)))
    assert jax.default_backend() == "cpu"
    options = zoo.compiler_options()
    assert options == compiling.CPU

    convolution = lambda x, w: jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    product = lambda x, w: x.reshape(-1, 64) @ w.reshape(-1, 64).T
    total = lambda x, w: x.sum() + w.sum()
    kept, moved = {"": 1, "zoo": 1}, {"": 1, "zoo": 0}
    for function, in_ynnpack in ((convolution, moved), (product, kept), (total, {"": 2, "zoo": 2})):
        compiled = {
            name: jax.jit(function, compiler_options=given).lower(x, w).compile()
            for name, given in (("", {}), ("zoo", options))
        }
        # Where this fails, XLA has changed: measure anew whether the options pay.
        assert {name: program.as_text().count('"__ynn_fusion"') for name, program in compiled.items()} == in_ynnpack
        one, other = (np.asarray(program(x, w)) for program in compiled.values())
        np.testing.assert_allclose(
            one, other, atol=1e-5 * np.abs(one).max()
        )  # float32 sums of up to 576 products in another order


def test_options_that_the_compiler_does_not_know_are_left_out(monkeypatch) -> None:
    monkeypatch.setattr(compiling, "CPU", {"xla_no_such_option": "1"})
    compiling._options.cache_clear()
    try:
        assert zoo.compiler_options() == {}
    finally:
        compiling._options.cache_clear()


def test_other_platforms_get_none() -> None:
    assert compiling._options("gpu") == ()


def test_a_model_computes_the_same_with_them(rng) -> None:
    params, state, apply = zoo.functional(zoo.create_model("resnet20_cifar", rngs=0))
    images = jnp.asarray(rng.standard_normal((3, 32, 32, 3), np.float32))
    one, other = (
        np.asarray(jax.jit(apply, compiler_options=given)(params, state, images)[0]) for given in ({}, zoo.compiler_options())
    )
    np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(one).max())  # rounding, through twenty layers
