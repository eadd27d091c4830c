"""What a compiled kernel does when it is executed: its PTX, one instruction at a time, on the CPU.

The first block of a launch runs at the size that a case names "count", where its whole tile is inside. Every address that its
warps ask for is seen, so what is counted is neither a formula nor a guess from the program text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from experiments.guide.topic import Counted
from kernels.runtime import devices
from kernels.verification import ptx
from kernels.verification.ptx.traffic import SECTOR, WARP


def first_block(counted: Counted) -> ptx.Seen:
    """The one launch of a variant, and what its first block does."""
    (variant,) = (v for v in counted.case.variants if v.name == counted.variant)
    assert variant.call is not None
    inputs = counted.case.draw(np.random.default_rng(0), *counted.case.sizes["count"])
    with ptx.watching() as seen, devices.target(counted.kind):
        jax.block_until_ready(variant.call(*inputs, implementation="ptx"))
    (one,) = seen
    return one


def figures(counted: Counted, **_: Any) -> Mapping[str, float]:
    """Of the first block: requests, sectors and conflicts, each counted from the addresses.

    `..._in_block` counts a sector once for the whole block, as a cache would that holds all of the block's.
    """
    seen = first_block(counted)
    counter, report = seen.counter, seen.report
    device, shared = counter.total("global"), counter.total("shared")
    found = {
        "sectors_per_request": device.parts / device.requests,
        "sector_bytes_per_byte": SECTOR * device.parts / device.bytes,
        "sector_bytes_per_byte_in_block": SECTOR * sum(map(len, counter.distinct.values())) / device.bytes,
        "executed_instructions": report.instructions,
        "barriers": sum(count for opcode, count in report.executed.items() if opcode.startswith(("bar", "barrier"))),
        "atomics": counter.atomics,
    }
    if shared.requests:
        found |= {"passes_per_request": shared.parts / shared.requests, "extra_passes": shared.parts - shared.least}
    return found


def per_element(counted: Counted, **_: Any) -> Mapping[str, float]:
    """PTX instructions that threads execute, for each element of the block; all warps of the block stay together."""
    seen = first_block(counted)
    call, report = seen.call, seen.report
    block = dict(call.constants)["BLOCK"]
    return {"executed_per_element": report.instructions * call.num_warps * WARP / block}


def instruction_widths(text: str, kind: str) -> list[int]:
    """Bytes that each load or store instruction in a kernel's PTX takes for a thread."""
    name = {"load": "ld", "store": "st"}[kind]
    found = re.findall(rf"\b{name}\.global[\w.:]*?(?:\.v(\d))?\.b(\d+)", text)
    widths = [int(count or 1) * int(bits) // 8 for count, bits in found]
    if kind == "load":
        widths += [int(size, 0) for size in re.findall(r"cp\.async\.c[ag]\.shared\.global \[[^\]]*\], \[[^\]]*\], (\w+)", text)]
    return widths or [1]
