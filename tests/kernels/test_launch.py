"""What becomes of a launch under each implementation's name, and that every operator hands the name on."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from kernels import verification
from kernels.commands.cases import SMALL
from kernels.commands.comparison import results
from kernels.max_pool import triton
from kernels.runtime import devices, launch
from kernels.verification import interpret

CASES = {case.operator: case for case in reversed(SMALL) if "ptx" in kernels.available(case.operator)}


@pytest.fixture
def executed(monkeypatch):
    """What the executor of PTX is handed; the interpreter stands in for it."""
    handed = []

    def run(call, arrays, compute_capability):
        handed.append((call, compute_capability))
        assert [a.shape for a in arrays] == list(call.shapes)[: call.inputs]
        assert all(isinstance(a, np.ndarray) for a in arrays)
        return interpret.launch(call, arrays)

    monkeypatch.setattr(verification, "ptx", types.SimpleNamespace(launch=run), raising=False)
    return handed


@pytest.mark.parametrize("operator", sorted(CASES))
def test_every_operator_hands_its_name_on(operator, executed):
    case = CASES[operator]
    arguments = case.draw("float32")
    found, expected = (results(case, arguments, name) for name in ("ptx", "interpret"))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    names = [call.kernel.__name__ for call, _ in executed]
    assert "forward_kernel" in names
    # Differentiated, the small networks are XLA's.
    assert ("backward_kernel" in names) == (operator not in ("lenet5", "mlp"))
    cooperative = operator in ("batch_norm_act", "rnn", "lstm", "gru")
    assert {call.cooperative for call, _ in executed} == {cooperative}


@pytest.mark.parametrize(("device", "capability"), [("cpu", devices.BASELINE), ("h100", (9, 0)), ("rtx-4090", (8, 9))])
def test_ptx_is_for_the_device_that_the_trace_sees(device, capability, executed):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 5, 5, 3)), jnp.float32)
    pool = jax.jit(lambda x: kernels.max_pool(x, 2, implementation="ptx"))
    with kernels.target(device):
        compiled = pool.lower(x).compile()
    np.testing.assert_array_equal(compiled(x), kernels.max_pool(x, 2, implementation="xla"))
    ((call, handed),) = executed
    assert handed == capability
    assert call.kernel is triton.forward_kernel
    assert call.grid == (2, 1)


def test_an_unknown_name():
    x = jnp.zeros((1, 4, 4, 1))
    with pytest.raises(ValueError, match="implementation: 'pallas' is none of triton, interpret, ptx"):
        triton.forward(x, (2, 2), (2, 2), ((0, 0), (0, 0)), "pallas")


def test_launches_are_recorded_whatever_runs_them():
    x = jnp.zeros((1, 4, 4, 1))
    with kernels.target("h100"):
        recorded = []
        for name in ("triton", "interpret"):
            with launch.recording() as calls:
                jax.eval_shape(lambda x, name=name: kernels.max_pool(x, 2, implementation=name), x)
            recorded += calls
    assert len(recorded) == 2
    assert recorded[0] == recorded[1]
