"""How many 32-byte sectors of memory the requests of a warp touch.

A load or store instruction is one request for each warp; the memory answers it in whole sectors of 32 bytes (NVIDIA, CUDA
C++ Best Practices Guide, "Coalesced Access to Global Memory"). Which element a thread holds is read off the layout that
Triton chose, and the addresses come from Triton's interpreter, so neither is a formula that might differ from the kernel.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.guide.topic import Counted

SECTOR = 32  # bytes
_LAYOUT = re.compile(r"^#(\w+) = #ttg\.blocked<\{(.*)\}>", re.M)
_ACCESS = re.compile(r"(?<!\w)tt\.(load|store) .*?tensor<([\dx]+)x!tt\.ptr<(\w+)>, #(\w+)>")


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which element each thread holds: Triton's blocked layout; `order` names the fastest axis first."""

    per_thread: tuple[int, ...]
    threads: tuple[int, ...]
    warps: tuple[int, ...]
    order: tuple[int, ...]

    def elements(self, shape: Sequence[int]) -> np.ndarray:
        """Flat indices [warp, register, lane] into a tile of this shape; it is repeated where the threads outnumber it."""
        axes = range(len(shape))
        span = [self.per_thread[a] * self.threads[a] * self.warps[a] for a in axes]
        repeats = [max(1, shape[a] // span[a]) for a in axes]

        def split(number: int, sizes: Sequence[int]) -> list[int]:
            found = [0] * len(sizes)
            for axis in self.order:
                number, found[axis] = divmod(number, sizes[axis])
            return found

        def index(warp: int, repeat: int, register: int, lane: int) -> int:
            parts = (
                split(repeat, repeats),
                split(warp, self.warps),
                split(lane, self.threads),
                split(register, self.per_thread),
            )
            at = [
                (((r * self.warps[a] + w) * self.threads[a] + t) * self.per_thread[a] + e) % shape[a]
                for a, (r, w, t, e) in enumerate(zip(*parts, strict=True))
            ]
            return int(np.ravel_multi_index(at, tuple(shape)))

        ranges = (math.prod(self.warps), math.prod(repeats), math.prod(self.per_thread), math.prod(self.threads))
        flat = np.array([index(*numbers) for numbers in itertools.product(*map(range, ranges))])
        return flat.reshape(ranges[0], ranges[1] * ranges[2], ranges[3])


def accesses(ttgir: str) -> list[tuple[str, tuple[int, ...], Layout]]:
    """Kind ("load" or "store"), shape of the tile and layout of each access, in the program's order."""
    layouts = {}
    for name, text in _LAYOUT.findall(ttgir):
        parts = {key: tuple(map(int, numbers.split(","))) for key, numbers in re.findall(r"(\w+) = \[([\d, ]+)\]", text)}
        layouts[name] = Layout(parts["sizePerThread"], parts["threadsPerWarp"], parts["warpsPerCTA"], parts["order"])
    return [(kind, tuple(map(int, shape.split("x"))), layouts[layout]) for kind, shape, _, layout in _ACCESS.findall(ttgir)]


def touched(addresses: np.ndarray, mask: np.ndarray, size: int, layout: Layout, width: int) -> tuple[int, int, int]:
    """Requests, sectors and bytes used of one access by a block.

    Args:
      addresses, mask: of each element of the tile, in bytes.
      size: of an element, in bytes.
      width: elements that a thread takes with one instruction.
    """
    elements = layout.elements(addresses.shape)
    address, valid = addresses.reshape(-1)[elements], mask.reshape(-1)[elements]
    requests = sectors = used = 0
    for warp in range(address.shape[0]):
        for first in range(0, address.shape[1], width):
            at = address[warp, first : first + width][valid[warp, first : first + width]]
            if at.size:
                requests += 1
                sectors += np.unique(at // SECTOR).size
                used += np.unique(at).size * size
    return requests, sectors, used


def figures(counted: Counted, **_: Any) -> Mapping[str, float]:
    """Of a kernel without loops: requests of a block, sectors a request, bytes of sectors fetched for each byte used.

    The first program is looked at, in the interpreter. `..._in_block` counts a sector once for the
    whole block, as a cache would that holds all of the block's.
    """
    (found,) = counted.resources
    seen, layouts = first_program(counted), accesses(found.ttgir)
    if [access.what for access in seen] != [kind for kind, _, _ in layouts]:
        raise ValueError(f"{counted.case.name}: the accesses interpreted and compiled differ")
    widths = {kind: max(instruction_widths(found.ptx, kind)) for kind in ("load", "store")}
    sums, distinct = np.zeros(3, int), {"load": np.zeros(0, int), "store": np.zeros(0, int)}
    for access, (kind, shape, layout) in zip(seen, layouts, strict=True):
        addresses, mask = (np.broadcast_to(a, shape) for a in (access.addresses, access.mask))
        width = max(1, min(widths[kind] // access.size, layout.per_thread[layout.order[0]]))
        sums += touched(addresses, mask, access.size, layout, width)
        distinct[kind] = np.union1d(distinct[kind], addresses[mask] // SECTOR)
    requests, sectors, used = map(int, sums)
    return {
        "requests": requests,
        "sectors_per_request": sectors / requests,
        "sector_bytes_per_byte": SECTOR * sectors / used,
        "sector_bytes_per_byte_in_block": SECTOR * sum(part.size for part in distinct.values()) / used,
    }


def first_program(counted: Counted) -> list[Any]:
    """What the first program of a variant's kernel accesses, at the size named "count", where its whole tile is inside.

    Returns `kernels.verification.interpret.Access` objects.
    """
    from kernels.verification import interpret

    (variant,) = (v for v in counted.case.variants if v.name == counted.variant)
    assert variant.call is not None
    inputs = counted.case.draw(np.random.default_rng(0), *counted.case.sizes["count"])
    with interpret.recording(programs=1) as record:
        jax.block_until_ready(variant.call(*inputs, implementation="interpret"))
    return record


def instruction_widths(ptx: str, kind: str) -> list[int]:
    """Bytes that each load or store instruction of a kernel takes for a thread."""
    name = {"load": "ld", "store": "st"}[kind]
    found = re.findall(rf"\b{name}\.global[\w.:]*?(?:\.v(\d))?\.b(\d+)", ptx)
    widths = [int(count or 1) * int(bits) // 8 for count, bits in found]
    if kind == "load":
        widths += [int(size, 0) for size in re.findall(r"cp\.async\.c[ag]\.shared\.global \[[^\]]*\], \[[^\]]*\], (\w+)", ptx)]
    return widths or [1]
