"""The persistent kernels and cuDNN on a GPU. Each case is a process of its own with a time limit: a barrier that never opens
cannot be interrupted from within, and must not hang the tests."""

import subprocess
import sys

import pytest

LIMIT = 300  # seconds, most of it to import and compile
# Sums of float32 products in three passes of tf32 (cuDNN: of one pass, unless told), and one rounding of 16-bit states.
TOLERANCES = {"float32": 1e-4, "float16": 4e-3, "bfloat16": 3e-2}
CASES = [
    ("lstm", "triton", {"batch": 10, "steps": 512, "features": 128, "hidden": 256, "layers": 6, "dtype": "float16"}),
    ("lstm", "triton", {"batch": 10, "steps": 64, "features": 128, "hidden": 256, "layers": 2, "directions": 2}),
    ("lstm", "triton", {"batch": 64, "steps": 32, "features": 64, "hidden": 1024, "dtype": "bfloat16"}),
    ("gru", "triton", {"batch": 7, "steps": 33, "features": 5, "hidden": 200, "layers": 3, "dtype": "float16"}),
    ("gru", "triton", {"batch": 3, "steps": 1, "features": 5, "hidden": 96}),
    ("rnn", "triton", {"batch": 8, "steps": 256, "features": 64, "hidden": 256, "layers": 6, "dtype": "float16"}),
    ("lstm", "cudnn", {"batch": 7, "steps": 33, "features": 5, "hidden": 96, "layers": 2, "directions": 2}),
]
PROGRAM = """
import jax
import kernels
from tests.kernels.recurrent_operands import assert_close, operands, results
cell, implementation, shape, tolerance = {case!r}
given = operands(cell, **shape)
with jax.default_matmul_precision("highest"):
    expected = results(cell, "xla", *given)
    for attempt in range(3):  # an order of the blocks that goes wrong need not come up at once
        try:
            found = results(cell, implementation, *given)
        except kernels.ImplementationError as refusal:  # not every GPU holds every shape, and a reason is no fault
            assert f"{{implementation}}: " in str(refusal), refusal
            print("refused:", refusal)
            break
        assert_close(found, expected, tolerance)
"""


def run(case, limit=LIMIT):
    """The case in a process of its own; what it prints where it fails.

    Raises:
      subprocess.TimeoutExpired: it did not end within the limit, and was killed.
    """
    command = [sys.executable, "-c", PROGRAM.format(case=case)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    return done.stderr[-3000:] if done.returncode else None


@pytest.mark.gpu
@pytest.mark.parametrize(("cell", "implementation", "shape"), CASES)
def test_equals_xla(cell, implementation, shape):
    assert run((cell, implementation, shape, TOLERANCES[shape.get("dtype", "float32")])) is None


def test_a_process_that_hangs_is_killed():
    """The watchdog itself: importing takes longer than this limit."""
    with pytest.raises(subprocess.TimeoutExpired):
        run((*CASES[0], 1), limit=0.2)
