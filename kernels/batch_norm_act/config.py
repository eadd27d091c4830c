"""How the batch-normalization kernels tile an array of rows (all leading axes) by channels."""

from __future__ import annotations

import dataclasses

from kernels.runtime import dispatch
from kernels.runtime.launches import usable_cores
from kernels.runtime.sizes import cdiv, power_of_two
from kernels.runtime.tuning import tuned_config


@dataclasses.dataclass(frozen=True)
class Config:
    slice: int  # channels that the grid works on at a time; a power of two, 8 at least
    block_rows: int  # rows of a tile; tiles of 16 elements a thread keep its sums in registers
    num_warps: int  # 8 or 16: see below
    lag: int  # slices summed ahead of the one being normalized: 1 hides the barrier, and doubles what must stay in L2


# All blocks must be resident at once, or the barrier never opens. There is one for each multiprocessor less `RESERVED`,
# of at most 512 threads: the assembler gives a block of that size at most 128 registers a thread, so that one always fits;
# `residency.require_a_core_each` makes sure of it.
MOST_WARPS = 16
CANDIDATES = (
    Config(32, 256, 16, 0),
    Config(32, 256, 16, 1),
    Config(64, 128, 16, 0),
    Config(64, 128, 16, 1),
    Config(128, 64, 16, 0),
    Config(128, 64, 16, 1),
    Config(32, 128, 8, 0),
    Config(64, 64, 8, 1),
)
L2_SHARE = 0.6  # of the cache that slices may take; the rest is for what streams past them
NARROWEST = 64  # bytes of a row that a slice has at least: two sectors of 32 (assumed: memory is read in pairs of them)


@dataclasses.dataclass(frozen=True)
class Plan:
    config: Config
    blocks: int
    resident: bool  # whether slices stay in L2 between their two readings


def choose(rows: int, channels: int, itemsize: int, arrays: int) -> Plan:
    """The plan for `rows` of `channels`, of which `arrays` arrays of `itemsize` bytes an element are read twice.

    What was measured; else the widest slice that fits the L2 cache with one slice of lag, else the widest that
    fits without lag, else (streaming) 128 channels. A narrow array is one slice.
    """
    here = dispatch.device()
    measured = tuned_config("batch_norm_act", f"{rows}x{channels}x{itemsize}x{arrays}")
    row_bytes = itemsize * arrays
    chosen = Config(**measured) if measured is not None else _rule(rows, channels, itemsize, row_bytes, here.l2_cache)
    blocks = min(usable_cores(here.cores or 8), cdiv(rows, chosen.block_rows))
    held = rows * min(chosen.slice, channels) * row_bytes * (1 + min(chosen.lag, cdiv(channels, chosen.slice) - 1))
    return Plan(chosen, blocks, held <= here.l2_cache * L2_SHARE)


def _rule(rows: int, channels: int, itemsize: int, row_bytes: int, l2_cache: int) -> Config:
    widest = min(128, max(8, power_of_two(channels)))
    for lag in (1, 0):
        for width in (128, 64, 32, 16):
            whole = width * itemsize >= NARROWEST or width == widest
            if width <= widest and whole and rows * width * row_bytes * (1 + lag) <= l2_cache * L2_SHARE:
                return _of_width(width, lag)
    return _of_width(widest, 0)


def _of_width(width: int, lag: int) -> Config:
    return Config(width, 8192 // width, MOST_WARPS, lag)
