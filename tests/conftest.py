"""Settings for every test. GPU-marked tests run with `pytest -m gpu`; all others on the CPU, whatever the machine has."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import tempfile

if not any(argument == "gpu" for argument in sys.argv):
    os.environ["JAX_PLATFORMS"] = "cpu"
    # Most of a test's time is the compiler's. XLA's own passes stay as they are; their machine code may be slower, and is
    # made in less time: by LLVM without its optimizations (0.6), and, before JAX 0.11, by the emitter of fusions that does
    # without MLIR (half, in processor time).
    flags = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
    if importlib.metadata.version("jaxlib").startswith("0.10."):
        flags.append("--xla_cpu_use_fusion_emitters=false")
    os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *flags))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# What somebody measured on this machine must not change what is tested; a folder that does not exist is an empty cache.
os.environ["JAX_KERNEL_ZOO_CACHE"] = os.path.join(tempfile.gettempdir(), "no-such-cache-of-jax-kernel-zoo")

import gc

import numpy as np
import pytest

# What is imported is never garbage, and JAX's many small objects need no collection after every 700 of them.
gc.freeze()
gc.set_threshold(7_000, 10, 10)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that differ from test to test and are the same from run to run."""
    return np.random.default_rng(list(request.node.nodeid.encode()))
