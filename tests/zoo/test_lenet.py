"""LeNet-5 in both forms: sizes, the paper's tables, and agreement with a plain NumPy evaluation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.models.lenet_tables import C3_CONNECTIONS, digit_bitmaps


@pytest.mark.parametrize("name", ["lenet5", "lenet5_original"])
def test_parameters_and_multiply_adds_are_as_registered(name: str) -> None:
    model, info = zoo.create_model(name), zoo.model_info(name)
    rows = zoo.summarize(model, info.input_shape)
    assert zoo.count_params(model) == info.params == sum(row.params for row in rows[:-1]) == rows[-1].params
    assert zoo.count_macs(model, info.input_shape) == info.macs == sum(row.macs for row in rows[:-1])
    assert rows[-1].output_shape == (10,)


def test_the_original_has_the_papers_parameters_layer_by_layer() -> None:
    rows = zoo.summarize(zoo.create_model("lenet5_original"), (32, 32, 1))
    assert {row.path: row.params for row in rows} == {
        "c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48120, "f6": 10164, "": 60000,
    }  # fmt: skip


def test_connection_table_is_table_one_of_the_paper() -> None:
    assert [len(inputs) for inputs in C3_CONNECTIONS] == [3] * 6 + [4] * 9 + [6]
    assert all(len(set(inputs)) == len(inputs) for inputs in C3_CONNECTIONS)
    # Column sums of Table I: each S2 map feeds ten C3 maps.
    assert np.bincount([i for inputs in C3_CONNECTIONS for i in inputs]).tolist() == [10] * 6


def test_target_codes_are_plus_and_minus_one_and_far_apart() -> None:
    codes = digit_bitmaps(12)
    assert codes.shape == (12, 84)
    assert set(np.unique(codes)) == {-1.0, 1.0}
    distances = (codes[:, None] != codes).sum(-1) + 84 * np.eye(12, dtype=int)
    assert distances.min() >= 6
    assert (digit_bitmaps(3) == codes[:3]).all()


def test_original_matches_a_direct_evaluation(rng: np.random.Generator) -> None:
    model = zoo.create_model("lenet5_original", rngs=3)
    x = rng.uniform(-0.1, 1.175, (3, 32, 32, 1))
    get = lambda leaf: np.asarray(leaf[...], np.float64)
    squash = lambda v: 1.7159 * np.tanh(2 / 3 * v)

    def conv(maps: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(maps, (5, 5), axis=(1, 2))
        return np.einsum("nhwcij,ijco->nhwo", windows, kernel)

    def pool(maps: np.ndarray, layer) -> np.ndarray:
        total = maps[:, ::2, ::2] + maps[:, 1::2, ::2] + maps[:, ::2, 1::2] + maps[:, 1::2, 1::2]
        return squash(total * get(layer.scale) + get(layer.bias))

    h = pool(squash(conv(x, get(model.c1.kernel)) + get(model.c1.bias)), model.s2)
    weights, position = get(model.c3.kernel), 0
    maps = []
    for output, inputs in enumerate(C3_CONNECTIONS):
        kernel = weights[position : position + len(inputs)].transpose(1, 2, 0)[..., None]
        maps.append(conv(h[..., list(inputs)], kernel)[..., 0] + get(model.c3.bias)[output])
        position += len(inputs)
    h = pool(squash(np.stack(maps, -1)), model.s4).reshape(3, -1)
    h = squash(h @ get(model.c5.kernel) + get(model.c5.bias))
    h = squash(h @ get(model.f6.kernel) + get(model.f6.bias))
    expected = -np.square(h[:, None] - digit_bitmaps(10)).sum(-1)
    # Sums of 84 squares of about 1, each a few roundings of float32 (6e-8) off.
    np.testing.assert_allclose(model(jnp.asarray(x, jnp.float32)), expected, rtol=2e-6, atol=0)


def test_features_and_reset_classifier() -> None:
    x = jnp.ones((2, 32, 32, 1))
    model = zoo.create_model("lenet5")
    assert {k: v.shape for k, v in jax.eval_shape(lambda x: zoo.features(model, x), x).items()} == {
        "pool1": (2, 14, 14, 6), "pool2": (2, 5, 5, 16), "fc1": (2, 120), "fc2": (2, 84),
    }  # fmt: skip
    for name in ("lenet5", "lenet5_original"):
        model = zoo.create_model(name)
        model.reset_classifier(7, rngs=zoo.registry.nnx.Rngs(1))
        assert jax.eval_shape(model, x).shape == (2, 7)


def test_bfloat16_computation_keeps_float32_parameters() -> None:
    for name in ("lenet5", "lenet5_original"):
        model = zoo.create_model(name, dtype=jnp.bfloat16)
        assert {leaf.dtype for leaf in jax.tree.leaves(zoo.functional(model)[0])} == {jnp.dtype("float32")}
        assert jax.eval_shape(model, jnp.ones((1, 32, 32, 1))).dtype == jnp.bfloat16


@pytest.mark.parametrize("shape", [(1, 28, 28, 1), (1, 32, 32, 3), (32, 32, 1)])
def test_wrong_input_shape_is_named(shape: tuple[int, ...]) -> None:
    for name in ("lenet5", "lenet5_original"):
        with pytest.raises(ValueError, match=r"x: shape .* given, \[batch, 32, 32, 1\] is needed"):
            zoo.create_model(name)(jnp.ones(shape))
