"""Tile sizes of the local-response-normalization kernels."""

from __future__ import annotations

import dataclasses

from kernels.runtime.sizes import power_of_two
from kernels.runtime.tuning import tuned_config


@dataclasses.dataclass(frozen=True)
class Config:
    elements: int  # of a tile, as long as that holds one row at least
    num_warps: int


CANDIDATES = (Config(1024, 4), Config(2048, 4), Config(2048, 8), Config(4096, 8))


def choose(channels: int) -> tuple[int, int, Config]:
    """Rows and (a power of two) channels of a tile. Without a measurement: 16 elements a thread."""
    measured = tuned_config("local_response_norm", str(channels))
    chosen = Config(**measured) if measured is not None else Config(2048, 4)
    width = power_of_two(channels)
    return max(1, chosen.elements // width), width, chosen
