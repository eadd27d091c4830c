"""Whether all blocks of a launch are on the device at the same time, without which a barrier across its grid never opens.

A cooperative launch would have the driver refuse what does not fit; jax-triton 0.3.1 cannot ask for one. So the compiled kernel
is asked what a block takes, and the grid is held against what the device has, less `launch.RESERVED` multiprocessors for what
else runs. A kernel of another stream or process that keeps more than those busy delays the barrier until it ends.
"""

from __future__ import annotations

import math

from kernels.runtime import dispatch, launch
from kernels.verification import aot

# Of a multiprocessor, the same from compute capability 8.0 to 9.0.
REGISTERS, REGISTERS_AT_ONCE, THREADS, BLOCKS = 65_536, 256, 2048, 32
SHARED_MEMORY_OF_A_BLOCK = 1024  # bytes that the system takes of each block's share


class NotResidentError(Exception):
    """A launch with a barrier across its grid, not all of whose blocks would run at the same time."""


def blocks_per_core(found: aot.Resources, num_warps: int, device: dispatch.Device) -> int:
    """How many blocks one multiprocessor of the device holds at the same time."""
    registers_of_a_warp = math.ceil(32 * found.registers / REGISTERS_AT_ONCE) * REGISTERS_AT_ONCE
    shared = device.shared_memory + SHARED_MEMORY_OF_A_BLOCK
    return min(
        BLOCKS,
        THREADS // (32 * num_warps),
        REGISTERS // (num_warps * registers_of_a_warp),
        shared // (found.shared_memory + SHARED_MEMORY_OF_A_BLOCK),
    )


def resident_blocks(call: launch.Launch, device: dispatch.Device) -> int:
    """How many blocks of this launch the device holds at the same time beside whatever else runs: it compiles the kernel."""
    found = aot.resources(call, device.compute_capability)
    return blocks_per_core(found, call.num_warps, device) * (device.cores - launch.RESERVED)


def require(call: launch.Launch) -> None:
    """Raises NotResidentError unless all blocks of the launch run at the same time on the device at hand."""
    here, blocks = dispatch.device(), math.prod(call.grid)
    resident = resident_blocks(call, here)
    if blocks > resident:
        raise NotResidentError(
            f"{call.kernel.fn.__name__} needs its {blocks} blocks to run at the same time, and {here.kind} holds {resident}"
        )
