"""Tile sizes of the cross-entropy kernels."""

from __future__ import annotations

import dataclasses

from kernels.runtime.sizes import power_of_two
from kernels.runtime.tuning import tuned_config


@dataclasses.dataclass(frozen=True)
class Config:
    elements: int  # of a tile: several short rows, or a stretch of a long one
    num_warps: int


CANDIDATES = (Config(1024, 4), Config(2048, 4), Config(4096, 8), Config(8192, 8))


def choose(classes: int) -> tuple[int, int, Config]:
    """Rows and classes of a tile. Without a measurement: tiles of 4096."""
    measured = tuned_config("softmax_cross_entropy", str(classes))
    chosen = Config(**measured) if measured is not None else Config(4096, 8)
    width = min(power_of_two(classes), chosen.elements)
    return chosen.elements // width, width, chosen
