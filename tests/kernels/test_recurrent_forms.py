"""Forms of cells that torch does not have (a GRU reset before its product, an LSTM with peepholes) against a loop in float64.

The loop's gradients are JAX's own.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import kernels
import zoo
from kernels import CellWeights
from tests.kernels.recurrent_operands import assert_close, operands, results

TOLERANCE = 1e-11  # the same sums in another order, in float64


def gru_step(w, x, state):
    (h,) = state
    x_r, x_z, x_n = jnp.split(x @ w.w_x + w.b_x + w.b_h, 3, -1)
    w_r, w_z, w_n = jnp.split(w.w_h, 3, -1)
    r, z = (1 / (1 + jnp.exp(-a)) for a in (x_r + h @ w_r, x_z + h @ w_z))
    return ((1 - z) * jnp.tanh(x_n + (r * h) @ w_n) + z * h,)


def lstm_step(w, x, state):
    h, c = state
    i, f, g, o = jnp.split(x @ w.w_x + w.b_x + h @ w.w_h + w.b_h, 4, -1)
    sigmoid = lambda a: 1 / (1 + jnp.exp(-a))
    new = sigmoid(f + w.peepholes[1] * c) * c + sigmoid(i + w.peepholes[0] * c) * jnp.tanh(g)
    h = sigmoid(o + w.peepholes[2] * new) * jnp.tanh(new)
    return (h if w.w_p is None else h @ w.w_p), new


STEPS = {"gru": gru_step, "lstm": lstm_step}
OPTIONS = {"gru": {"reset_after": False}, "lstm": {}}


def loop(cell, x, stack, state, lengths):
    """Outputs and final states, as kernels.gru and kernels.lstm give them."""
    state, lengths = state if cell == "lstm" else (state,), np.asarray(lengths)[:, None]
    finals = []
    for number, layer in enumerate(stack):
        ways = []
        for way, w in enumerate(layer):
            now, ys = tuple(part[number * len(layer) + way] for part in state), [None] * x.shape[1]
            for t in range(x.shape[1]) if way == 0 else reversed(range(x.shape[1])):
                new = STEPS[cell](w, x[:, t], now)
                now = tuple(jnp.where(t < lengths, a, b) for a, b in zip(new, now, strict=True))
                ys[t] = jnp.where(t < lengths, new[0], 0)
            ways.append(jnp.stack(ys, 1))
            finals.append(now)
        x = jnp.concatenate(ways, -1)
    final = tuple(jnp.stack(part) for part in zip(*finals, strict=True))
    return x, final if cell == "lstm" else final[0]


def wide_operands(cell, batch, steps, features, hidden, *, project=0, **shape):
    stack, x, state = operands(cell, batch, steps, features, hidden, **shape)
    rng = np.random.default_rng(7)
    if cell == "lstm":
        stack = [[w._replace(peepholes=rng.standard_normal((3, hidden))) for w in layer] for layer in stack]
    if project:
        stack = [
            [w._replace(w_h=w.w_h[:project], w_p=rng.standard_normal((hidden, project)) / 3) for w in layer] for layer in stack
        ]
        state = (state[0][..., :project], state[1])
    return jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), (stack, x, state))


CASES = {
    "one step": ({"batch": 1, "steps": 1, "features": 3, "hidden": 5}, None),
    "two layers, both ways, lengths": (
        {"batch": 3, "steps": 3, "features": 5, "hidden": 7, "layers": 2, "directions": 2},
        [3, 1, 2],
    ),
    # Large enough for the form that a CPU's loop takes its matrices in.
    "held transposed": ({"batch": 8, "steps": 2, "features": 3, "hidden": 304}, [2, 1, 2, 1, 2, 2, 2, 2]),
}


def loss_and_results(run, stack, x, state):
    """As in `recurrent_operands.results`, of any function of the operands."""

    def total(stack, x, state):
        outputs, final = run(stack, x, state)
        arrays = [outputs, *jax.tree.leaves(final)]
        return sum((a * jnp.cos(jnp.arange(a.size)).reshape(a.shape)).sum() for a in arrays), arrays

    return jax.grad(total, argnums=(0, 1, 2), has_aux=True)(stack, x, state)


@pytest.mark.parametrize("cell", STEPS)
@pytest.mark.parametrize("name", CASES)
def test_equals_the_loop_forward_and_gradients(cell, name):
    shape, lengths = CASES[name]
    with jax.enable_x64(True):
        given = wide_operands(cell, **shape)
        every = lengths or [shape["steps"]] * shape["batch"]
        expected = jax.jit(lambda *given: loss_and_results(lambda w, x, s: loop(cell, x, w, s, every), *given))(*given)
        found = results(cell, None, *given, seq_lengths=lengths, **OPTIONS[cell])
        assert_close(found, expected, TOLERANCE)


def test_peepholes_beside_a_projection():
    with jax.enable_x64(True):
        given = wide_operands("lstm", 2, 3, 4, 6, project=4)
        expected = jax.jit(lambda *given: loss_and_results(lambda w, x, s: loop("lstm", x, w, s, [3, 3]), *given))(*given)
        assert_close(results("lstm", None, *given), expected, TOLERANCE)


@pytest.mark.parametrize("cell", STEPS)
def test_in_reverse_and_in_forward_mode(cell):
    with jax.enable_x64(True):
        stack, x, state = wide_operands(cell, 2, 3, 4, 5)
        operator = lambda stack, x: getattr(kernels, cell)(x, stack, state, reverse=True, **OPTIONS[cell])[0]
        by_loop = lambda stack, x: loop(cell, x[:, ::-1], stack, state, [3, 3])[0][:, ::-1]
        at, towards = (stack, x), jax.tree.map(jnp.sin, (stack, x))
        moved = [jax.jit(lambda at, towards, fn=fn: jax.jvp(fn, at, towards))(at, towards) for fn in (operator, by_loop)]
        assert_close(*moved, TOLERANCE)


@pytest.mark.parametrize("cell", STEPS)
def test_low_precision_keeps_dtypes(cell):
    with jax.enable_x64(True):
        stack, x, state = wide_operands(cell, 3, 4, 5, 8)
        expected = results(cell, None, stack, x, state, **OPTIONS[cell])
    narrow = jax.tree.map(lambda a: np.asarray(a).astype(jnp.bfloat16), (stack, x))
    found = results(cell, None, *narrow, jax.tree.map(lambda a: np.asarray(a, np.float32), state), **OPTIONS[cell])
    # Inputs, weights, gates and outputs rounded to 8 bits, over four steps.
    assert_close(found, expected, 0.05)
    assert {a.dtype for a in jax.tree.leaves(found[0][:2])} == {jnp.dtype(jnp.bfloat16)}


def test_what_has_neither():
    stack, x, state = operands("gru", 2, 3, 5, 20)
    for name in ("interpret", "triton"):
        with pytest.raises(kernels.ImplementationError, match="reset_after=False asks for it before"):
            kernels.gru(x, stack, state, reset_after=False, implementation=name)
    peeping = lambda cell, hidden: [
        [w._replace(peepholes=jnp.zeros((3, hidden))) for w in layer] for layer in operands(cell, 2, 3, 5, 20)[0]
    ]
    for name in ("interpret", "triton", "cudnn"):
        with pytest.raises(kernels.ImplementationError, match=f"{name}: it has no peepholes"):
            kernels.lstm(x, peeping("lstm", 20), implementation=name)
    with pytest.raises(ValueError, match=r"layers\[0\].peepholes: shape \(3, 5\) given, \(3, 20\) is needed"):
        kernels.lstm(x, peeping("lstm", 5))
    with pytest.raises(ValueError, match=r"layers\[0\].peepholes: gru has no cell state"):
        kernels.gru(x, peeping("gru", 20))
    with pytest.raises(ValueError, match="reset_after: False given, and lstm has no reset gate"):
        zoo.Recurrent("lstm", 3, 4, reset_after=False, rngs=nnx.Rngs(0))


def test_through_the_layer():
    layer = zoo.Recurrent("gru", 4, 6, 2, True, reset_after=False, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).standard_normal((2, 3, 4), dtype=np.float32)
    weights = lambda end: CellWeights(*(getattr(layer, name + end)[...] for name in ("w_x", "w_h", "b_x", "b_h")))
    stack = [[weights(f"_l{number}{way}") for way in ("", "_reverse")] for number in (0, 1)]
    found, expected = layer(x), kernels.gru(x, stack, reset_after=False)
    assert_close(found, expected, 0)
    assert np.abs(found[0] - kernels.gru(x, stack)[0]).max() > 1e-3


@pytest.mark.parametrize("implementation", ["xla", "interpret"])
def test_an_empty_batch(implementation):
    stack, x, (h, c) = operands("lstm", 2, 3, 5, 8, directions=2)
    outputs, final = kernels.lstm(x[:0], stack, (h[:, :0], c[:, :0]), implementation=implementation)
    assert [a.shape for a in (outputs, *final)] == [(0, 3, 16), (2, 0, 8), (2, 0, 8)]
