"""Block sizes of the max-pooling kernels."""

from __future__ import annotations

import dataclasses

from kernels.runtime.tuning import tuned_config


@dataclasses.dataclass(frozen=True)
class Config:
    block: int  # elements of a row that a program computes
    num_warps: int


CANDIDATES = tuple(Config(block, warps) for block, warps in ((256, 2), (512, 4), (1024, 4), (1024, 8), (2048, 8)))


def choose(row: int) -> Config:
    """What was measured for rows of this many elements; else 8 elements a thread (16 bytes in bfloat16), less on short rows."""
    measured = tuned_config("max_pool", str(row))
    if measured is not None:
        return Config(**measured)
    return next((c for c in CANDIDATES if c.block >= row), Config(1024, 4))
