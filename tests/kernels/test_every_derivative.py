"""Every operator in forward mode and to the second order, of plain JAX and through the hand-written kernels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from kernels.commands.cases import SMALL

# One case of each operator; the recurrent kernels have no derivative but the first gradient, and say so.
CASES = {case.operator: case for case in reversed(SMALL)}
RECURRENT = ("lstm", "gru", "rnn")
STEP = 1e-6
HAND = sorted(name for name in CASES if "interpret" in kernels.available(name) and name not in RECURRENT)


def derivatives(case, arguments, implementation):
    """The tangents of the results, of the gradients of a loss, and the gradient of the gradients' squares."""
    fn = lambda arguments: case.call(arguments, implementation)
    weighted = lambda a: jnp.sum(a * jnp.cos(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape))
    loss = lambda arguments: sum(weighted(a) for a in jax.tree.leaves(fn(arguments)))
    squares = lambda arguments: sum(jnp.sum(g**2) for g in jax.tree.leaves(jax.grad(loss)(arguments)))
    direction = jax.tree.map(jnp.cos, arguments)
    return jax.jit(lambda a, t: (jax.jvp(fn, (a,), (t,))[1], jax.jvp(jax.grad(loss), (a,), (t,))[1], jax.grad(squares)(a)))(
        arguments, direction
    )


@pytest.mark.slow
@pytest.mark.parametrize("operator", sorted(CASES))
def test_plain_jax(operator):
    """By finite differences in float64."""
    case = CASES[operator]
    with jax.enable_x64(True):
        arguments = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), case.draw("float32"))
        direction = jax.tree.map(jnp.cos, arguments)
        at = lambda step: jax.tree.map(lambda a, t: a + step * t, arguments, direction)
        fn = lambda arguments: jax.tree.leaves(case.call(arguments, "xla"))
        gradients = jax.jit(jax.grad(lambda arguments: sum(jnp.sum(jnp.sin(a)) for a in fn(arguments))))
        for run in (jax.jit(fn), gradients):
            found = jax.jit(lambda a, t, run=run: jax.jvp(run, (a,), (t,))[1])(arguments, direction)
            # The error of central differences is about the square of the step, and a rounding over it.
            expected = jax.tree.map(lambda high, low: (high - low) / (2 * STEP), run(at(STEP)), run(at(-STEP)))
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
                kinks = np.abs(a - b) > 1e-4 * max(1, np.abs(b).max())  # where a maximum or a relu turns within the step
                assert kinks.mean() < 0.01, operator


@pytest.mark.slow
@pytest.mark.parametrize("operator", HAND)
def test_through_the_kernels(operator):
    case = CASES[operator]
    arguments = case.draw("float32")
    found, expected = derivatives(case, arguments, "interpret"), derivatives(case, arguments, "xla")
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        # float32, summed in another order, in derivatives of derivatives
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-4 * max(1, np.abs(b).max()))


@pytest.mark.parametrize("operator", RECURRENT)
def test_recurrent_kernels_say_what_they_have(operator):
    case = CASES[operator]
    arguments = case.draw("float32")
    fn = lambda arguments: jax.tree.leaves(case.call(arguments, "interpret"))[0].sum()
    gradient = jax.grad(fn)
    message = f'{operator} cannot be differentiated so: its kernels have the first gradient alone; "xla" has every derivative'
    for derive in (lambda a: jax.jvp(fn, (a,), (a,)), lambda a: jax.jvp(gradient, (a,), (a,))):
        with pytest.raises(kernels.ImplementationError, match=message):
            jax.jit(derive)(arguments)
    jax.eval_shape(gradient, arguments)
