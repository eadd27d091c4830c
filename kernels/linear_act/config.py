"""Tile sizes of the linear_act kernels: `Config` for the one in Triton, `PallasConfig` for the one in Pallas."""

from __future__ import annotations

import dataclasses

from kernels.runtime.sizes import cdiv, power_of_two
from kernels.runtime.tuning import tuned_config


@dataclasses.dataclass(frozen=True)
class Config:
    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int


CANDIDATES = (
    Config(16, 64, 64, 4, 4),
    Config(32, 128, 64, 4, 4),
    Config(64, 64, 32, 4, 3),
    Config(64, 128, 64, 4, 3),
    Config(128, 64, 64, 4, 3),
    Config(128, 128, 32, 8, 3),
    Config(128, 128, 64, 8, 3),
)


def choose(rows: int, inputs: int, outputs: int, itemsize: int, cores: int) -> Config:
    """What was measured for the shape; else the largest tile of which there are enough for every multiprocessor to have one.

    In float32 a tile is half as deep, so that as many bytes are in flight and shared memory holds them.
    """
    measured = tuned_config("linear_act", f"{rows}x{inputs}x{outputs}x{itemsize}")
    if measured is not None:
        return Config(**measured)
    chosen = CANDIDATES[0]
    for block_m, block_n, warps in ((128, 128, 8), (128, 64, 4), (64, 64, 4), (32, 64, 4), (16, 64, 4)):
        chosen = Config(block_m, min(block_n, max(16, power_of_two(outputs))), 64 if itemsize == 2 else 32, warps, 3)
        if cdiv(rows, block_m) * cdiv(outputs, chosen.block_n) >= cores:
            break
    return dataclasses.replace(chosen, block_k=min(chosen.block_k, max(16, power_of_two(inputs))))


@dataclasses.dataclass(frozen=True)
class PallasConfig:
    tile_m: int  # rows of one warpgroup, of which two share a tile of the output
    tile_n: int
    tile_k: int
    stages: int  # tiles of x and w that are on their way at a time


PALLAS_CANDIDATES = (
    PallasConfig(64, 64, 64, 4),
    PallasConfig(64, 128, 64, 4),
    PallasConfig(64, 256, 64, 3),
    PallasConfig(128, 64, 64, 4),
    PallasConfig(128, 128, 64, 3),
    PallasConfig(128, 128, 64, 2),
)


def choose_pallas(rows: int, inputs: int, outputs: int, cores: int) -> PallasConfig:
    """What was measured for the shape; else 128 rows a warpgroup where that leaves every multiprocessor a tile, else 64; and
    128 columns, or 64 where there are no more."""
    measured = tuned_config("linear_act.pallas", f"{rows}x{inputs}x{outputs}")
    if measured is not None:
        return PallasConfig(**measured)
    if outputs <= 64:
        return PALLAS_CANDIDATES[0]
    filled = cdiv(rows, 256) * cdiv(outputs, 128) >= cores
    return PALLAS_CANDIDATES[4 if filled else 1]
