"""mlp and lenet5: a whole small network as one operator."""

from __future__ import annotations

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import example, given, settings
from hypothesis import strategies as st

import kernels
from kernels.runtime import activations
from tests.kernels.checking import DTYPES, HAND, INTERPRETED, TOLERANCE, assert_close, assert_matches_float64, few, normal


def layers(sizes, dtype, seed=10):
    weights = [normal(seed + i, size, dtype, scale=size[-2] ** -0.5) for i, size in enumerate(sizes)]
    biases = [normal(seed + 20 + i, size[-1:]) for i, size in enumerate(sizes)]
    return weights, biases


def plain_mlp(x, weights, biases, activation, final):
    for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
        x = x @ w + b
        x = (activation if i < len(weights) - 1 else final)(x)
    return x


def identity(x):
    return x


# the generator and the discriminator of gan_mlp, and odd sizes
MLPS = [
    (19, (100, 256, 70), "relu", "tanh", jax.nn.relu, jnp.tanh),
    (33, (70, 256, 1), "leaky_relu", None, lambda x: jnp.where(x > 0, x, 0.2 * x), identity),
    (5, (7, 11, 3), "gelu", None, lambda x: jax.nn.gelu(x, approximate=False), identity),
]


@pytest.mark.parametrize("implementation", ["xla", *HAND])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", MLPS, ids=["generator", "discriminator", "odd"])
def test_mlp_matches_float64(implementation, dtype, case):
    rows, (inputs, hidden, outputs), activation, final, *functions = case
    weights, biases = layers([(inputs, hidden), (hidden, outputs)], dtype)
    flat = (normal(0, (rows, inputs), dtype), *weights, *biases)
    hand = lambda x, w0, w1, b0, b1: kernels.mlp(x, [w0, w1], [b0, b1], activation, final, implementation=implementation)
    reference = lambda x, w0, w1, b0, b1: plain_mlp(x, [w0, w1], [b0, b1], *functions)
    with jax.default_matmul_precision("highest"):
        # The rounded hidden layer is multiplied and rounded again, and so is its gradient: a third more for their product.
        assert_matches_float64(hand, reference, flat, 3 * TOLERANCE[dtype.dtype.name])


def in_numpy(activation, z, slope):
    return {
        None: z,
        "relu": np.maximum(z, 0),
        "leaky_relu": np.where(z > 0, z, slope * z),
        "tanh": np.tanh(z),
        "gelu": z * scipy.stats.norm.cdf(z),
    }[activation]


def in_float64(fn, *args):
    with jax.enable_x64(True):
        return jax.device_get(jax.jit(fn)(*jax.tree.map(lambda a: np.asarray(a, np.float64), args)))


def value_and_gradients(fn, args, dy):
    y, pullback = jax.vjp(fn, *args)
    return y, pullback(dy.astype(y.dtype))


def whole(seed, shape, dtype=jnp.float32):
    """-1, 0 and 1: sums and products of few of them are exact, and many of them are ties."""
    return jnp.asarray(np.random.default_rng(seed).integers(-1, 2, shape), dtype)


# Where they are differentiated it is XLA that runs (see the last tests), so that with gradients these check XLA's side too.
# The first of each list is what hypothesis tries first. A block takes 32 rows; across, blocks are powers of two from 16 on.
ROWS = [(33,), (0,), (3, 5), (1,), (), (7,)]  # what stands before the last axis
WIDTHS = {"inputs": [45, 31, 32, 1], "hidden": [17, 64, 1], "outputs": [33, 3, 1]}
MLP_DRAWS = {"leading": st.sampled_from(ROWS), **{name: st.sampled_from(sizes) for name, sizes in WIDTHS.items()}}


@pytest.mark.parametrize("implementation", HAND)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", activations.NAMES)
@settings(few, max_examples=3)
@example(leading=(0,), inputs=3, hidden=4, outputs=5, final=None, slope=0.2, seed=0)
@given(**MLP_DRAWS, final=st.sampled_from(activations.NAMES), slope=st.sampled_from([0.2, 0.0, 1.5]), seed=st.integers(0, 999))
def test_mlp_of_drawn_shapes(implementation, dtype, activation, leading, inputs, hidden, outputs, final, slope, seed):
    weights, biases = layers([(inputs, hidden), (hidden, outputs)], dtype, seed)
    x = normal(seed + 50, (*leading, inputs), dtype)
    run = lambda *a: kernels.mlp(*a, activation, final, slope, implementation=implementation)
    with jax.default_matmul_precision("highest"):
        y = jax.jit(run)(x, weights, biases)
    assert y.dtype == dtype
    wide = jax.tree.map(lambda a: np.asarray(a, np.float64), (x, weights, biases))
    expected = plain_mlp(*wide, *(functools.partial(in_numpy, name, slope=slope) for name in (activation, final)))
    # The hidden layer is rounded to dtype, and so is y; the activations stretch what reaches them by 1.5 at most: 1 + 1.5.
    assert_close(y, expected, 3 * TOLERANCE[dtype.dtype.name], "y")


@pytest.mark.parametrize("implementation", INTERPRETED)
@settings(few, max_examples=4)
@given(
    **MLP_DRAWS,
    dtype=st.sampled_from([jnp.bfloat16, jnp.float32, jnp.float16]),
    activation=st.sampled_from(["relu", "leaky_relu", None]),
    final=st.sampled_from(["relu", "leaky_relu", None]),
    seed=st.integers(0, 999),
)
def test_mlps_gradients_at_ties_are_exact(implementation, dtype, leading, inputs, hidden, outputs, activation, final, seed):
    """Of whole numbers, so that many sums are exactly zero, where relu's derivative is 0 and leaky_relu's is 1."""
    shapes = [(*leading, inputs), (inputs, hidden), (hidden, outputs), (hidden,), (outputs,)]
    args = [whole(seed + i, shape, dtype if i < 3 else jnp.float32) for i, shape in enumerate(shapes)]
    dy = whole(seed + 5, (*leading, outputs))

    def both(fn):
        return lambda args, dy: value_and_gradients(fn, args, dy)

    def hand(x, w0, w1, b0, b1):
        return kernels.mlp(x, [w0, w1], [b0, b1], activation, final, 0.25, implementation=implementation)

    def reference(x, w0, w1, b0, b1):
        functions = [lambda z, name=name: activations.apply(name, z, 0.25) for name in (activation, final)]
        return plain_mlp(x, [w0, w1], [b0, b1], *functions)

    y, gradients = jax.jit(both(hand))(args, dy)
    exact, exact_gradients = in_float64(both(reference), args, dy)
    # Every intermediate is a multiple of 1/16 below 2**12 and, where it is rounded to 8 bits before the end, a multiple of 1/4
    # up to 46 or of 1/16 up to 33: nothing is rounded but the results, once.
    for a, e in zip((jax.jit(hand)(*args), y, *gradients), (exact, exact, *exact_gradients), strict=True):
        np.testing.assert_array_equal(np.asarray(a, np.float64), np.asarray(jnp.asarray(e, jnp.float32).astype(a.dtype), float))


@pytest.mark.parametrize("implementation", HAND)
@settings(few, max_examples=2)
@given(
    **MLP_DRAWS,
    dtype=st.sampled_from([jnp.bfloat16, jnp.float32, jnp.float16]),
    activation=st.sampled_from(["tanh", "gelu"]),
    final=st.sampled_from(["tanh", "gelu", None]),
    seed=st.integers(0, 999),
)
def test_mlps_gradients_of_smooth_activations(implementation, dtype, leading, inputs, hidden, outputs, activation, final, seed):
    weights, biases = layers([(inputs, hidden), (hidden, outputs)], dtype, seed)
    flat = (normal(seed + 50, (*leading, inputs), dtype), *weights, *biases)
    hand = lambda x, w0, w1, b0, b1: kernels.mlp(x, [w0, w1], [b0, b1], activation, final, implementation=implementation)
    functions = [lambda z, name=name: activations.apply(name, z) for name in (activation, final)]
    reference = lambda x, w0, w1, b0, b1: plain_mlp(x, [w0, w1], [b0, b1], *functions)
    with jax.default_matmul_precision("highest"):
        # a rounded hidden layer, and a rounded gradient of it that is multiplied once more
        assert_matches_float64(hand, reference, flat, 3 * TOLERANCE[dtype.dtype.name])


def lenet5_by_hand(x, weights, biases):
    relu = lambda x: jnp.where(x > 0, x, 0)  # at zero without a gradient
    for w, b in zip(weights[:2], biases[:2], strict=True):
        x = jax.lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        n, height, width, channels = x.shape
        windows = relu(x + b).reshape(n, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 5, 2, 4)
        windows = windows.reshape(n, height // 2, width // 2, channels, 4)
        first = jnp.argmax(windows, -1, keepdims=True)  # of several maxima the first has the gradient
        x = jnp.take_along_axis(windows, first, -1)[..., 0]
    return plain_mlp(x.reshape(len(x), 400), weights[2:], biases[2:], relu, identity)


@pytest.mark.parametrize("implementation", ["xla", *HAND])
@pytest.mark.parametrize(("batch", "channels", "dtype"), [(3, 1, jnp.float32), (18, 3, jnp.bfloat16), (1, 1, jnp.float16)])
def test_lenet5_matches_float64(implementation, batch, channels, dtype):
    shapes = [(5, 5, channels, 6), (5, 5, 6, 16), (400, 120), (120, 84), (84, 10)]
    weights, biases = layers(shapes, dtype)
    x = normal(0, (batch, 32, 32, channels), dtype)
    with jax.default_matmul_precision("highest"):
        logits = kernels.lenet5(x, weights, biases, implementation=implementation)
    expected = in_float64(lenet5_by_hand, x, weights, biases)
    assert_close(logits, expected, 4 * TOLERANCE[dtype.dtype.name], "logits")  # five layers, each rounded to dtype


def lenet5_shapes(channels, classes):
    return [(5, 5, channels, 6), (5, 5, 6, 16), (400, 120), (120, 84), (84, classes)]


LENET5_DRAWS = {
    "batch": st.sampled_from([17, 3, 1]),  # a block takes 16 images
    "channels": st.sampled_from([3, 5, 1, 2, 4]),
    "classes": st.sampled_from([17, 10, 1]),
    "seed": st.integers(0, 999),
}


@pytest.mark.parametrize("implementation", INTERPRETED)
@settings(few, max_examples=3)
@given(**LENET5_DRAWS, dtype=st.sampled_from([jnp.bfloat16, jnp.float32, jnp.float16]), shift=st.sampled_from([0.0, -1.0]))
def test_lenet5_of_drawn_shapes(implementation, dtype, batch, channels, classes, seed, shift):
    weights, biases = layers(lenet5_shapes(channels, classes), dtype, seed)
    biases = [b + shift for b in biases]  # of negative ones most windows of the pools are all zeros after the ReLU
    x = normal(seed + 50, (batch, 32, 32, channels), dtype)
    run = lambda *a: kernels.lenet5(*a, implementation=implementation)
    with jax.default_matmul_precision("highest"):
        logits = jax.jit(run)(x, weights, biases)
    assert logits.dtype == dtype
    expected = in_float64(lenet5_by_hand, x, weights, biases)
    assert_close(logits, expected, 4 * TOLERANCE[dtype.dtype.name], "logits")  # five layers, each rounded to dtype


def sparse(seed, shape, count):
    """Of each output's weights `count` are 1 or -1, the others 0."""
    rng = np.random.default_rng(seed)
    inputs, outputs = int(np.prod(shape[:-1])), shape[-1]
    w = np.zeros((inputs, outputs))
    for output in range(outputs):
        w[rng.permutation(inputs)[:count], output] = rng.choice([-1, 1], min(count, inputs))
    return w.reshape(shape)


@pytest.mark.parametrize("implementation", INTERPRETED)
@settings(few, max_examples=2)
@example(batch=0, channels=1, classes=10, dtype=jnp.float16, seed=0)
@given(**LENET5_DRAWS, dtype=st.sampled_from(DTYPES))
def test_lenet5s_gradients_at_ties_are_exact(implementation, dtype, batch, channels, classes, seed):
    """Images of flat patches, so that windows of the pools hold several equal maxima, zeros and others; small whole numbers,
    so that they are equal exactly and every layer is exact in 8 bits."""
    weights = [jnp.asarray(sparse(seed + i, s, 3), dtype) for i, s in enumerate(lenet5_shapes(channels, classes))]
    biases = [whole(seed + 10 + i, w.shape[-1:]) for i, w in enumerate(weights)]
    x = jnp.repeat(jnp.repeat(whole(seed + 20, (batch, 8, 8, channels), dtype), 4, 1), 4, 2)
    dy = whole(seed + 21, (batch, classes))

    def both(fn):
        return lambda args, dy: value_and_gradients(fn, args, dy)

    hand = lambda *a: kernels.lenet5(*a, implementation=implementation)
    logits, gradients = jax.jit(both(hand))((x, weights, biases), dy)
    exact, exact_gradients = in_float64(both(lenet5_by_hand), (x, weights, biases), dy)
    rounded = np.asarray(jnp.asarray(exact, jnp.float32).astype(dtype), float)
    for result in (logits, jax.jit(hand)(x, weights, biases)):
        np.testing.assert_array_equal(np.asarray(result, np.float64), rounded)
    # The same elements have the gradient. In float32 its sums of whole numbers are exact; in 16 bits they are rounded in each
    # layer that they pass on their way back.
    tolerance = 0.0 if dtype == jnp.float32 else 4 * TOLERANCE[dtype.dtype.name]
    for a, e in zip(jax.tree.leaves(gradients), jax.tree.leaves(exact_gradients), strict=True):
        assert_close(a, e, tolerance, "gradient")


@pytest.mark.parametrize("implementation", HAND)
def test_lenet5s_gradient_is_xlas(implementation):
    weights, biases = layers(lenet5_shapes(1, 10), jnp.float32)
    x = normal(0, (2, 32, 32, 1))
    loss = lambda w, i: jnp.sum(jnp.square(kernels.lenet5(x, w, biases, implementation=i)))
    hand, expected = (jax.jit(lambda w, i=i: jax.grad(loss)(w, i))(weights) for i in (implementation, "xla"))
    for h, e in zip(hand, expected, strict=True):
        np.testing.assert_array_equal(h, e)


KERNEL = re.compile("python_(cpu|gpu)_callback|triton_kernel_call")


@pytest.mark.parametrize("implementation", HAND)
@pytest.mark.parametrize(
    ("fn", "x", "sizes"),
    [(kernels.lenet5, (2, 32, 32, 1), lenet5_shapes(1, 10)), (kernels.mlp, (5, 7), [(7, 11), (11, 3)])],
    ids=["lenet5", "mlp"],
)
def test_differentiated_they_launch_nothing(implementation, fn, x, sizes):
    """XLA computes value and gradients then: the backward pass needs the hidden layers, which the kernels do not keep."""
    args = (normal(0, x), *layers(sizes, jnp.float32))
    value = lambda *a: jnp.sum(fn(*a, implementation=implementation))
    assert KERNEL.search(jax.jit(value).lower(*args).as_text())
    assert not KERNEL.search(jax.jit(jax.value_and_grad(value, (0, 1, 2))).lower(*args).as_text())


def test_bad_arguments_are_named():
    x, w, b = jnp.zeros((2, 4)), jnp.zeros((4, 3)), jnp.zeros(3)
    with pytest.raises(ValueError, match=r"weights\[1\]: shape \(4, 3\) is not \(3, 3\)"):
        kernels.mlp(x, [w, w], [b, b])
    with pytest.raises(ValueError, match="weights, biases: 1 and 2 arrays"):
        kernels.mlp(x, [w], [b, b])
    with pytest.raises(kernels.ImplementationError, match="takes two layers, and was given 1"):
        kernels.mlp(x, [w], [b], implementation="interpret")
    with pytest.raises(ValueError, match=r"x: shape \(1, 28, 28, 1\)"):
        kernels.lenet5(jnp.zeros((1, 28, 28, 1)), [w] * 5, [b] * 5)
    with pytest.raises(ValueError, match=r"weights\[0\]: shape"):
        kernels.lenet5(jnp.zeros((1, 32, 32, 1)), [w] * 5, [b] * 5)
