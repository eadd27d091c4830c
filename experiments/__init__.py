"""Everything a person runs: train, evaluate, generate, compare, inspect, report, guide."""

import importlib.util
import os

# The test environment includes JAX's CUDA plug-in, to compile for absent GPUs. Without an NVIDIA driver it would log an error
# at every start, so it is not loaded there.
if (
    "JAX_PLATFORMS" not in os.environ
    and importlib.util.find_spec("jax_plugins") is not None
    and importlib.util.find_spec("jax_plugins.xla_cuda13") is not None
    and not any(os.path.exists(device) for device in ("/dev/nvidiactl", "/dev/dxg"))
):
    os.environ["JAX_PLATFORMS"] = "cpu"
