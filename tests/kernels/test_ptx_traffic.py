"""Sectors and passes over banks, counted beside loops over threads and beside what is known of a pattern."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.verification.ptx import traffic
from tests.kernels import ptx_texts


@pytest.mark.parametrize("width", [1, 2, 4, 8, 16])
def test_requests_counted_one_by_one(width: int, rng: np.random.Generator) -> None:
    """Random addresses of some threads of two warps, beside a count by loops and sets."""
    lanes = np.flatnonzero(rng.random(64) < 0.7)
    where = (rng.integers(0, 512, lanes.size) * width).astype(np.uint64)
    (it,) = (i for i in ptx_texts.kernel("ld.global.b32 %r1, [%d0];").kernel.instructions if "global" in i.opcode)
    for space in ("global", "shared"):
        counter = traffic.Counter()
        counter(space, lanes, where, width, it, False)
        requests = parts = least = 0
        for warp in range(2):
            members = [(int(lane) % 32, int(at)) for lane, at in zip(lanes, where, strict=True) if lane // 32 == warp]
            requests += bool(members)
            if space == "global":
                parts += len({(at + i) // 32 for _, at in members for i in range(width)})
                continue
            together = min(32, 128 // width)
            for group in range(0, 32, together):
                words = {(at + i) // 4 for lane, at in members if group <= lane < group + together for i in range(width)}
                if words:
                    parts += max(sum(word % 32 == bank for word in words) for bank in range(32))
                    least += 1
        found = counter.counts[space, "read"]
        assert (found.requests, found.parts) == (requests, parts)
        assert space == "global" or found.least == least


@pytest.mark.parametrize(("stride", "passes"), [(1, 1), (2, 2), (3, 1), (32, 32), (33, 1), (0, 1)])
def test_strides_in_shared_memory(stride: int, passes: int) -> None:
    """A stride that shares k factors of two with the 32 banks takes that many passes; the same word for all takes one."""
    body = f"mul.lo.s32 %r1, %r0, {4 * stride};\nmov.u32 %r2, memory;\nadd.s32 %r1, %r1, %r2;\nst.shared.b32 [%r1], %r0;"
    counter = traffic.Counter()
    ptx_texts.run(body, outputs=[np.zeros(1, np.int32)], shared_memory=32 * 33 * 4, watch=counter)
    assert counter.counts["shared", "write"] == traffic.Count(1, passes, 1, 4 * len({stride * i for i in range(32)}))
