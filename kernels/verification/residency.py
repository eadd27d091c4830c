"""Whether all blocks of a launch are resident at the same time; otherwise a barrier across its grid never opens.

With a cooperative launch the driver would refuse what does not fit, but jax-triton 0.3.1 cannot request one. So the resources
of a block are read from the compiled kernel, and the grid is compared with what the device has, less `launches.RESERVED`
multiprocessors for whatever else runs. A kernel of another stream or process that keeps more than those busy delays the barrier
until it ends.
"""

from __future__ import annotations

import math

from kernels.runtime import devices, launches
from kernels.runtime.gpus import RESERVED_SHARED_MEMORY
from kernels.verification import aot

REGISTERS_AT_ONCE = 256  # a warp is given registers in this unit, from compute capability 8.0 to 12.0


class NotResidentError(Exception):
    """A launch with a barrier across its grid, not all of whose blocks would run at the same time."""


def blocks_per_core(found: aot.Resources, num_warps: int, device: devices.Device) -> int:
    """How many blocks one multiprocessor of the device holds at the same time."""
    registers_of_a_warp = math.ceil(32 * found.registers / REGISTERS_AT_ONCE) * REGISTERS_AT_ONCE
    if found.shared_memory > device.shared_memory:
        return 0
    return min(
        device.core_blocks,
        device.core_threads // (32 * num_warps),
        device.core_registers // (num_warps * registers_of_a_warp),
        device.core_shared_memory // (found.shared_memory + RESERVED_SHARED_MEMORY),
    )


def resident_blocks(call: launches.Launch, device: devices.Device) -> int:
    """How many blocks of this launch the device holds at the same time beside whatever else runs: it compiles the kernel."""
    found = aot.resources(call, device.compute_capability)
    return blocks_per_core(found, call.num_warps, device) * launches.usable_cores(device.cores)


def require_a_core_each(call: launches.Launch) -> None:
    """Raises NotResidentError unless there is a multiprocessor for each block.

    Nothing is compiled: a block that can be launched at all fits on one, so such a grid is resident whatever its blocks take.
    """
    here, blocks = devices.device(), math.prod(call.grid)
    if blocks > launches.usable_cores(here.cores):
        raise NotResidentError(
            f"{call.kernel.fn.__name__} needs a multiprocessor for each of its {blocks} blocks, and {here.kind} has "
            f"{launches.usable_cores(here.cores)} to give"
        )


def require(call: launches.Launch) -> None:
    """Raises NotResidentError unless all blocks of the launch run at the same time on the device at hand."""
    here, blocks = devices.device(), math.prod(call.grid)
    resident = resident_blocks(call, here)
    if blocks > resident:
        raise NotResidentError(
            f"{call.kernel.fn.__name__} needs its {blocks} blocks to run at the same time, and {here.kind} holds {resident}"
        )
