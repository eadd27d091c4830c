"""Everything a person runs: train, evaluate, generate, compare, inspect, report, guide."""

import importlib.util
import os
import sys

# The test environment includes JAX's CUDA plug-in, to compile for absent GPUs. Without an NVIDIA driver it would log an error
# at every start, so it is not loaded there.
if (
    "JAX_PLATFORMS" not in os.environ
    and importlib.util.find_spec("jax_plugins") is not None
    and importlib.util.find_spec("jax_plugins.xla_cuda13") is not None
    and not any(os.path.exists(device) for device in ("/dev/nvidiactl", "/dev/dxg"))
):
    os.environ["JAX_PLATFORMS"] = "cpu"


def _one_line(kind, error, traceback):
    """For Ctrl-C while a command still imports; from then on `experiments.errors.run` says it."""
    if kind is KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = _one_line
