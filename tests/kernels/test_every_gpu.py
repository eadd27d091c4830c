"""Every kernel compiled at a model's shape for every architecture: it fits, and spills nothing but where that is listed."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import pytest

import kernels
from kernels.commands.cases import LARGE, Case, both_ways
from kernels.runtime import devices, gpus, launch
from kernels.verification import aot, residency

ARCHITECTURES = ("a100-80gb", "rtx-3090", "rtx-4090", "h100", "b200", "rtx-5090")  # sm_80, 86, 89, 90, 100, 120
FIRST = {case.operator: case for case in reversed(LARGE)}
FIRST["batch_norm_act"] = Case(
    "batch_norm_act",
    "256x28x28x128",
    {"x": (256, 28, 28, 128), "scale": (128,), "bias": (128,), "residual": (256, 28, 28, 128)},
)
# (operator, dtype) -> the GPUs where registers run out: bytes of a thread that Triton 3.6 or 3.7 spills, at most.
SPILLS = {
    ("lenet5", "float32"): {"rtx-3090": 28, "rtx-4090": 28},  # outside the loops
    # 512 threads share all registers, and float32 takes two for what bfloat16 packs in one.
    ("batch_norm_act", "float32"): {"rtx-4090": 28, "h100": 16, "b200": 16, "rtx-5090": 32},
    # Triton multiplies float32 without tensor cores there, with the operands in registers.
    ("rnn", "float32"): {"b200": 1404},
    ("lstm", "float32"): {"b200": 1404},
}
# (operator, dtype) -> the GPUs where it is refused at this size: what a block holds of the weights, in float32 as two numbers
# of tf32, does not fit their shared memory, or would run out of registers.
ALL_BUT_LARGE = ("a100-80gb", "rtx-3090", "rtx-4090", "rtx-5090")
REFUSED = {
    ("rnn", "float32"): ALL_BUT_LARGE,
    ("lstm", "float32"): ALL_BUT_LARGE,
    ("gru", "float32"): ARCHITECTURES,
}


def launches_of(case: Case, dtype: str) -> list[launch.Launch]:
    is_shape = lambda node: isinstance(node, tuple) and all(isinstance(n, int) for n in node)
    given = jax.tree.map(lambda dims: jax.ShapeDtypeStruct(dims, jnp.dtype(dtype)), dict(case.shapes), is_leaf=is_shape)
    fn = lambda arguments: case.call(arguments, "triton")
    with launch.recording() as calls:
        if case.backward:
            jax.eval_shape(both_ways(fn), given, jax.eval_shape(lambda a: case.call(a, "xla"), given))
        else:
            jax.eval_shape(fn, given)
    return list(dict.fromkeys(calls))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("operator", sorted(FIRST))
@pytest.mark.parametrize("gpu", ARCHITECTURES)
def test_it_compiles_and_fits(gpu, operator, dtype):
    case = FIRST[operator]
    with aot.lowering_for(gpu):
        here = devices.device()
        if gpu in REFUSED.get((operator, dtype), ()):
            with pytest.raises(kernels.ImplementationError, match="do not fit on"):
                launches_of(case, dtype)
            return
        calls = launches_of(case, dtype)
    assert calls
    for call in calls:
        found = aot.resources(call, here.compute_capability)
        what = f"{call.kernel.fn.__name__}: {found}"
        assert found.shared_memory <= here.shared_memory, what
        assert residency.blocks_per_core(found, call.num_warps, here) >= 1, what
        if operator in ("batch_norm_act", "rnn", "lstm", "gru"):  # a barrier across the grid
            assert math.prod(call.grid) <= residency.resident_blocks(call, here), what
        assert found.spilled <= SPILLS.get((operator, dtype), {}).get(gpu, 0), what


def test_an_assembler_that_refuses_is_a_reason(monkeypatch, tmp_path):
    """One line, that the operator gives as its reason; never a traceback."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ptxas").write_text("#!/bin/sh\necho 'ptxas fatal   : error: no such architecture' >&2\nexit 255\n")
    (tmp_path / "bin" / "ptxas").chmod(0o755)
    monkeypatch.setattr(aot, "toolkit", lambda major=9: tmp_path)
    weights = kernels.CellWeights(jnp.zeros((7, 4 * 48)), jnp.zeros((48, 4 * 48)))
    x = jnp.zeros((3, 5, 7))
    with kernels.target("b200"):
        message = (
            r"the assembler refuses forward_kernel for compute capability 10\.0: ptxas fatal   : error: no such architecture"
        )
        with pytest.raises(kernels.ImplementationError, match=message):
            kernels.lstm(x, [weights], implementation="triton")
        assert kernels.lstm(x, [weights])[0].shape == (3, 5, 48)


def test_the_assembler_is_chosen_by_architecture():
    names = {major: (aot.toolkit(major) / "bin" / "ptxas").resolve().name for major in (8, 9, 10, 12)}
    assert names[10] == names[12] == "ptxas-blackwell"
    assert names[8] == names[9]


def test_every_architecture_of_the_table_is_compiled():
    assert {gpus.GPUS[name].compute_capability for name in ARCHITECTURES} == {g.compute_capability for g in gpus.GPUS.values()}
