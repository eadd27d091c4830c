"""Tile sizes of the mlp kernel."""

from __future__ import annotations

import dataclasses

from kernels.runtime.tuning import tuned_config


@dataclasses.dataclass(frozen=True)
class Config:
    block_m: int
    block_k: int
    block_n: int
    num_warps: int
    num_stages: int


CANDIDATES = (Config(16, 32, 32, 4, 2), Config(32, 32, 32, 4, 2), Config(64, 32, 32, 8, 2), Config(32, 64, 32, 8, 2))


def choose(rows: int, inputs: int, hidden: int, outputs: int, itemsize: int) -> Config:
    """What was measured for the shape; else 32 rows a block, of which a batch of 4096 gives each multiprocessor one."""
    measured = tuned_config("mlp", f"{rows}x{inputs}x{hidden}x{outputs}x{itemsize}")
    return Config(**measured) if measured is not None else CANDIDATES[1]
