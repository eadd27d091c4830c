"""Everything a person runs: train, evaluate, generate, compare, inspect, report, guide."""

import importlib.util
import os

# The tests bring JAX's CUDA plug-in along, to compile for GPUs that are not there. On a machine without an NVIDIA driver it
# would complain at every start, so it is left alone there.
if (
    "JAX_PLATFORMS" not in os.environ
    and importlib.util.find_spec("jax_plugins") is not None
    and importlib.util.find_spec("jax_plugins.xla_cuda13") is not None
    and not any(os.path.exists(device) for device in ("/dev/nvidiactl", "/dev/dxg"))
):
    os.environ["JAX_PLATFORMS"] = "cpu"
