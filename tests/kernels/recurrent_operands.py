"""What the tests of the recurrent kernels share: random operands, and results with all their gradients."""

import jax
import jax.numpy as jnp
import numpy as np

import kernels
from kernels import CellWeights
from kernels.recurrent.stack import state_dtype

GATES = {"rnn": 1, "lstm": 4, "gru": 3}


def operands(cell, batch, steps, features, hidden, layers=1, directions=1, dtype=jnp.float32):
    rng = np.random.default_rng(hidden)

    def draw(*shape):
        return jnp.asarray(rng.standard_normal(shape) / np.sqrt(shape[0]), dtype)

    columns = GATES[cell] * hidden
    stack = [
        [
            CellWeights(
                draw(directions * hidden if layer else features, columns), draw(hidden, columns), draw(columns), draw(columns)
            )
            for _ in range(directions)
        ]
        for layer in range(layers)
    ]
    state = jnp.asarray(rng.standard_normal((layers * directions, batch, hidden)), jnp.float32)
    x = jnp.asarray(rng.standard_normal((batch, steps, features)), dtype)
    return stack, x, (state, state / 2) if cell == "lstm" else state


def results(cell, implementation, stack, x, state, **options):
    """Outputs, final state, and the gradients of a weighted sum of all of them by weights, input and initial state."""

    def total(stack, x, state):
        outputs, final = getattr(kernels, cell)(x, stack, state, implementation=implementation, **options)
        arrays = [outputs, *jax.tree.leaves(final)]
        weighted = [(a.astype(state_dtype(a.dtype)) * jnp.cos(jnp.arange(a.size)).reshape(a.shape)).sum() for a in arrays]
        return sum(weighted), arrays

    return jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))(stack, x, state)


def exact_results(cell, stack, x, state, **options):
    """`results` of plain JAX in float64."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), (stack, x, state))
        return jax.device_get(results(cell, "xla", *wide, **options))


def assert_close(found, expected, tolerance):
    """Every element within `tolerance` times the largest magnitude expected, or times 1 where that is less."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max()))
