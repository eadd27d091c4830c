"""Every operator's compiled code, for two architectures, against float64: what this version of Triton makes of the kernels."""

from __future__ import annotations

import jax
import pytest

import kernels
from kernels.commands.cases import SMALL
from kernels.commands.comparison import exact, results, worst_error
from kernels.runtime import launch
from kernels.verification import ptx

CASES = {case.operator: case for case in reversed(SMALL) if "ptx" in kernels.available(case.operator)}


@pytest.mark.parametrize(("device", "dtype"), [("a100-80gb", "float32"), ("h200", "bfloat16")])
@pytest.mark.parametrize("operator", sorted(CASES))
def test_results_and_gradients(operator: str, device: str, dtype: str) -> None:
    case = CASES[operator]
    arguments = case.draw(dtype)
    with kernels.target(device), jax.default_matmul_precision("highest"):
        found = results(case, arguments, "ptx")
    worst_error(case, dtype, found, exact(case, arguments))


def test_an_architectures_own_instructions_are_in_its_code() -> None:
    """Hopper's products of four warps in that for compute capability 9.0 alone."""
    case = CASES["linear_act"]
    arguments = case.draw("bfloat16")
    with launch.recording() as calls:
        jax.eval_shape(lambda a: case.call(a, "ptx"), arguments)
    executed = {}
    for capability in ((8, 0), (9, 0)):
        program, _ = ptx.program(calls[0], capability)
        executed[capability] = {step.it.parts[0] for step in program.steps}
    assert "wgmma" in executed[9, 0] - executed[8, 0]
    assert "mma" in executed[8, 0]
