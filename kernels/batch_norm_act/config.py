"""How the batch-normalization kernels cut up an array of rows (all leading axes) by channels."""

from __future__ import annotations

import dataclasses

from kernels import dispatch
from kernels.launch import cdiv, power_of_two
from kernels.tuning import tuned_config


@dataclasses.dataclass(frozen=True)
class Config:
    slice: int  # channels that the grid works on at a time; a power of two, 8 at least
    block_rows: int  # rows of a tile; tiles of 4096 elements keep a thread's sums in registers
    num_warps: int
    blocks_per_core: int  # blocks resident on a multiprocessor at the same time
    lag: int  # slices summed ahead of the one being normalized: 1 hides the barrier, and doubles what must stay in L2


CANDIDATES = (
    Config(32, 128, 8, 1, 0),
    Config(32, 128, 8, 2, 0),
    Config(32, 128, 8, 2, 1),
    Config(64, 64, 8, 1, 0),
    Config(64, 64, 8, 2, 0),
    Config(64, 64, 8, 2, 1),
    Config(128, 32, 8, 2, 0),
    Config(128, 32, 8, 2, 1),
)
L2_SHARE = 0.6  # of the cache that slices may take; the rest is for what streams past them
SECTOR = 64  # bytes that device memory hands over at a time: narrower slices would fetch some of them twice


@dataclasses.dataclass(frozen=True)
class Plan:
    config: Config
    blocks: int
    resident: bool  # whether slices stay in L2 between their two readings


def choose(rows: int, channels: int, row_bytes: int) -> Plan:
    """The plan for `rows` of `channels`, of which both readings take `row_bytes` bytes per row and channel.

    What was measured; else the widest slice of whole sectors that fits the L2 cache with one slice of lag, else the widest that
    fits without lag, else (streaming) 128 channels. A narrow array is one slice.
    """
    here = dispatch.device()
    measured = tuned_config("batch_norm_act", f"{rows}x{channels}x{row_bytes}")
    chosen = Config(**measured) if measured is not None else _rule(rows, channels, row_bytes, here.l2_cache)
    blocks = max(1, min(here.cores * chosen.blocks_per_core or 4, cdiv(rows, chosen.block_rows)))
    held = rows * min(chosen.slice, channels) * row_bytes * (1 + min(chosen.lag, cdiv(channels, chosen.slice) - 1))
    return Plan(chosen, blocks, held <= here.l2_cache * L2_SHARE)


def _rule(rows: int, channels: int, row_bytes: int, l2_cache: int) -> Config:
    widest = min(128, max(8, power_of_two(channels)))
    if widest < 32:
        return Config(widest, 4096 // widest, 8, 2, 0)
    for lag in (1, 0):
        for width in (128, 64, 32):
            if width <= widest and rows * width * row_bytes * (1 + lag) <= l2_cache * L2_SHARE:
                return Config(width, 4096 // width, 8, 2, lag)
    return Config(widest, 4096 // widest, 8, 2, 0)
