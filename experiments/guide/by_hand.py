"""Kernels written in PTX, for what Triton does not let one write: shared memory by address, branches of single threads.

They are executed on the CPU and assembled, so that they can be counted; JAX has no way to launch them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.guide.topic import Counted
from kernels.verification import ptx
from kernels.verification.ptx.traffic import Counter

TEMPLATE = """
.version 8.0
.target sm_90
.address_size 64
.extern .shared .align 16 .b8 memory[];
.visible .entry kernel(.param .u64 .ptr .global .align 16 x, .param .u64 .ptr .global .align 16 y)
.reqntid {threads}
{{
.reg .pred %p<8>; .reg .b32 %r<64>; .reg .f32 %f<64>; .reg .b64 %d<16>;
ld.param.b64 %d0, [x];
ld.param.b64 %d1, [y];
mov.u32 %r0, %tid.x;
{body}
ret;
}}
"""


def kernel(lines: Sequence[str], threads: int = 32) -> str:
    """A kernel of one block size; %d0 and %d1 point to x and y, %r0 is the thread, `memory` is shared memory."""
    return TEMPLATE.format(threads=threads, body="\n".join(lines))


@functools.cache
def program(text: str) -> ptx.Program:
    return ptx.Program(text)


def run(text: str, x: np.ndarray, blocks: int = 1, shared: int = 0) -> tuple[np.ndarray, Counter, ptx.Report]:
    """y, of the shape of x, what was asked of memory, and what was executed.

    Raises:
      ExecutionError: what a GPU would answer with an error; ProblemsError: a race, or a read of what nobody wrote.
    """
    counter = Counter()
    outputs = [(x.shape, x.dtype)]
    (y,), report = ptx.execute(program(text), (blocks,), [x], outputs, shared_memory=shared, watch=counter)
    if report.problems:
        raise ptx.ProblemsError(report.summary())
    return y, counter, report


def figures(counted: Counted, text: str, blocks: int = 1, shared: int = 0) -> Mapping[str, float]:
    """Of all blocks, on the inputs of seed 0."""
    (x,) = counted.case.draw(np.random.default_rng(0), *counted.size)
    _, counter, report = run(text, x, blocks, shared)
    memory = counter.total("shared")
    found: dict[str, float] = {"executed_instructions": report.instructions}
    if shared:
        passes = {"passes_per_request": memory.parts / memory.requests, "extra_passes": memory.parts - memory.least}
        found |= {"shared_bytes": shared} | passes
    return found
