"""A kernel with a barrier across its grid in a program of several devices: plain JAX runs in its place, sharded or not."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import kernels
from kernels.batch_norm_act import sharded, xla
from kernels.batch_norm_act.spec import Inputs, Spec
from kernels.verification import aot


@pytest.mark.slow
@pytest.mark.parametrize("batch", ["data", None])
def test_batch_norm_runs_no_barrier_beside_collectives(batch):
    """Compiled for eight GPUs, with the batch sharded and whole: no hand-written kernel; for one there is one."""

    def step(x, scale, bias):
        y, pullback = jax.vjp(lambda *a: kernels.batch_norm_act(*a, implementation="triton")[0], x, scale, bias)
        return pullback(y)

    args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((16, 8, 8, 32), (32,), (32,))]
    hlo = aot.compile_sharded("h200", 8, step, args, (P(batch), P(), P())).as_text()
    assert "triton_kernel_call" not in hlo
    assert ("all-reduce" in hlo) == (batch is not None)
    assert "triton_kernel_call" in aot.compile_for("h200", step, *args).as_text()


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_the_plain_form_without_a_mesh_axis(rng, activation):
    x, scale, bias = rng.standard_normal((4, 3, 16)), rng.standard_normal(16), rng.standard_normal(16)
    spec = Spec(activation, epsilon=1e-5, has_residual=False, has_signs=False, implementation="interpret", momentum=0.1)
    arrays = [jnp.asarray(a, jnp.float32) for a in (x, scale, bias)]
    found = sharded.forward(None, spec, Inputs(arrays[0], None, arrays[1], arrays[2], None))
    expected = xla.batch_norm_act(*arrays, None, activation, 1e-5)
    np.testing.assert_allclose(found.y, expected[0], atol=1e-6)  # the same sums in the same order
    np.testing.assert_allclose(found.statistics, jnp.stack(expected[1:]), atol=1e-6)
