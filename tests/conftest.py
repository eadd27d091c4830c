"""Settings for every test. GPU-marked tests run with `pytest -m gpu`; all others on the CPU, whatever the machine has."""

from __future__ import annotations

import os
import sys

if not any(argument == "gpu" for argument in sys.argv):
    os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pytest


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that differ from test to test and are the same from run to run."""
    return np.random.default_rng(list(request.node.nodeid.encode()))
