"""softmax_cross_entropy beside torch's: reductions, class weights, ignored labels, and values at the edges."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import kernels

INF = np.inf
ROWS = [[INF, 0, 1], [INF, INF, 0], [-INF, 0, 1], [-INF, -INF, -INF], [np.nan, 0, 1], [INF, -INF, 0], [3e38, 3e38, 3e38]]
LABELS = [("uint8", 256), ("uint8", 300), ("int8", 128), ("int8", 127), ("uint8", 10), ("int16", 32_768), ("uint32", 9)]


def torch_and_gradient(logits, labels, **options):
    x = torch.tensor(np.asarray(logits, np.float64), requires_grad=True)
    # torch has the classes second.
    loss = torch.nn.functional.cross_entropy(x.movedim(-1, 1), torch.tensor(labels), **options)
    loss.sum().backward()
    return loss.detach().numpy(), x.grad.numpy()


@pytest.mark.parametrize("implementation", ["xla", "interpret"])
@pytest.mark.parametrize(
    ("ignore", "weighted", "reduction"), list(itertools.product([None, 2, -100], [False, True], ["none", "sum", "mean"]))
)
def test_class_numbers(rng, implementation, ignore, weighted, reduction):
    shape, classes = (3, 5), 7
    logits = jnp.asarray(rng.standard_normal((*shape, classes)) * 3, jnp.float32)
    labels = rng.integers(0, classes, shape)
    labels[0, :3] = 2 if ignore is None else ignore
    weight = rng.uniform(0.1, 2, classes) if weighted else None
    options = {"reduction": reduction} | ({} if ignore is None else {"ignore_index": ignore})

    def hand(logits):
        given = None if weight is None else jnp.asarray(weight, jnp.float32)
        return kernels.softmax_cross_entropy(
            logits, jnp.asarray(labels), weight=given, implementation=implementation, **options
        )

    peer = {} if weight is None else {"weight": torch.tensor(weight)}
    loss, gradient = torch_and_gradient(logits, labels, **options, **peer)
    np.testing.assert_allclose(hand(logits), loss, rtol=1e-5, atol=1e-5)  # float32 beside float64
    np.testing.assert_allclose(jax.grad(lambda x: hand(x).sum())(logits), gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_smoothing_beside_weights(rng, probabilities, reduction):
    logits, weight = rng.standard_normal((6, 5)), rng.uniform(0.1, 2, 5)
    labels = rng.dirichlet(np.ones(5), 6) if probabilities else rng.integers(0, 5, 6)
    options = {"label_smoothing": 0.2, "reduction": reduction}
    expected, _ = torch_and_gradient(logits, labels, weight=torch.tensor(weight), **options)
    with jax.enable_x64(True):
        found = kernels.softmax_cross_entropy(jnp.asarray(logits), jnp.asarray(labels), weight=jnp.asarray(weight), **options)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("implementation", ["xla", "interpret"])
@pytest.mark.parametrize("row", ROWS)
def test_infinities(implementation, row):
    logits = np.array([row] * 3, np.float32)
    expected, _ = torch_and_gradient(logits, np.arange(3), reduction="none")
    found = kernels.softmax_cross_entropy(jnp.asarray(logits), jnp.arange(3), implementation=implementation)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("implementation", ["xla", "interpret"])
@pytest.mark.parametrize(("dtype", "classes"), LABELS)
def test_labels_of_every_integer_type(rng, implementation, dtype, classes):
    logits = jnp.asarray(rng.standard_normal((6, classes)), jnp.float32)
    labels = rng.integers(0, min(classes, np.iinfo(dtype).max + 1), 6).astype(dtype)
    labels[0] = min(classes - 1, np.iinfo(dtype).max)
    expected, _ = torch_and_gradient(logits, labels.astype(np.int64), reduction="none")
    found = kernels.softmax_cross_entropy(logits, jnp.asarray(labels), implementation=implementation)
    np.testing.assert_allclose(found, expected, rtol=2e-5)  # sums of up to 65,536 terms in float32


@pytest.mark.parametrize("implementation", ["xla", "interpret"])
def test_an_unknown_label_is_nan_in_every_type(implementation):
    logits = jnp.zeros((2, 3))
    with jax.enable_x64(True):
        for labels in (
            np.array([3, 255], "uint8"),
            np.array([-1, -128], "int8"),
            np.array([2**32, 2**32 + 1], "int64"),
            np.array([2**64 - 1, 2**63], "uint64"),
            np.array([2**32 - 1, 2**31], "uint32"),
        ):
            found = kernels.softmax_cross_entropy(logits, jnp.asarray(labels), implementation=implementation)
            assert np.isnan(found).all(), labels


def test_bad_arguments():
    logits, labels = jnp.zeros((2, 3)), jnp.zeros(2, int)
    with pytest.raises(ValueError, match="reduction: 'average' is none of none, sum, mean"):
        kernels.softmax_cross_entropy(logits, labels, reduction="average")
    with pytest.raises(ValueError, match=r"weight: shape \(2,\) is not \(3,\)"):
        kernels.softmax_cross_entropy(logits, labels, weight=jnp.ones(2))
    with pytest.raises(ValueError, match="ignore_index: 1 is given, and the labels are class probabilities"):
        kernels.softmax_cross_entropy(logits, logits, ignore_index=1)
    with pytest.raises(kernels.ImplementationError, match="interpret: it takes no weight beside label_smoothing"):
        kernels.softmax_cross_entropy(logits, labels, 0.1, weight=jnp.ones(3), implementation="interpret")
    assert kernels.softmax_cross_entropy(logits, labels, ignore_index=300).shape == (2,)
    assert kernels.softmax_cross_entropy(logits, labels.astype("uint8"), ignore_index=-100, reduction="mean").shape == ()
