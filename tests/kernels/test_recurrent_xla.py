"""The loop of plain JAX: the form that a CPU gets for large matrices equals the one of other devices, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recurrent_operands import assert_close, exact_results, operands, results

import kernels
from kernels.recurrent.cells import Transposed, held

TOLERANCE = 1e-11  # the same sums of hundreds of products in another order, in float64


def test_which_matrices_a_cpu_holds_transposed():
    large, small = jnp.zeros((1, 256, 1024)), jnp.zeros((1, 128, 512))
    assert isinstance(held(large, 32), Transposed)
    for matrix, batch in ((large, 1), (large, 256), (small, 32)):
        assert held(matrix, batch) is matrix
    with kernels.target("nvidia-h200"):
        assert held(large, 32) is large


@pytest.mark.parametrize(("cell", "hidden", "directions"), [("rnn", 512, 1), ("lstm", 256, 2), ("gru", 296, 1)])
def test_a_cpus_form_equals_the_others(cell, hidden, directions):
    given = operands(cell, 9, 3, 5, hidden, directions=directions)
    with kernels.target("nvidia-h200"):
        expected = exact_results(cell, *given)
    assert_close(exact_results(cell, *given), expected, TOLERANCE)


def test_under_vmap_and_with_a_projection():
    with jax.enable_x64(True):
        ((weights,),), x, state = operands("lstm", 8, 3, 5, 512, dtype=jnp.float64)
        state = jax.tree.map(lambda s: s.astype(jnp.float64), state)
        weights = weights._replace(w_p=jnp.asarray(np.random.default_rng(1).standard_normal((512, 512)) / 32))
        one = lambda x: results("lstm", "xla", [[weights]], x, state)
        found = jax.device_get(jax.vmap(one)(jnp.stack([x, 2 * x])))
        with kernels.target("nvidia-h200"):
            expected = jax.device_get([one(x), one(2 * x)])
    for i in range(2):
        assert_close(jax.tree.map(lambda a, i=i: a[i], found), expected[i], TOLERANCE)
