"""Warps per block of the LeNet-5 kernel."""

from __future__ import annotations

import dataclasses

from kernels.runtime.tuning import tuned_config


@dataclasses.dataclass(frozen=True)
class Config:
    num_warps: int  # that share a block's 16 images


CANDIDATES = (Config(4), Config(8), Config(16))


def choose(batch: int, itemsize: int) -> Config:
    """What was measured for the shape; else 8 warps, which need no more registers than they have."""
    measured = tuned_config("lenet5", f"{batch}x{itemsize}")
    return Config(**measured) if measured is not None else Config(8)
