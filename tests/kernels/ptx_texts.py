"""Small kernels in PTX, written for the tests of the executor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kernels.verification import ptx

REGISTERS = ".reg .pred %p<20>; .reg .b16 %h<60>; .reg .b32 %r<60>; .reg .b64 %d<60>;"


def kernel(body: str, threads: int = 32, pointers: int = 1, target: str = "sm_90a") -> ptx.Program:
    """A kernel whose parameters are pointers, in %d0, %d1 and so on; %r0 is the thread, `memory` all of shared memory."""
    parameters = ",\n".join(f".param .u64 .ptr .global .align 1 p{i}" for i in range(pointers))
    loads = "\n".join(f"ld.param.b64 %d{i}, [p{i}];" for i in range(pointers))
    return ptx.Program(
        f"""
.version 8.7
.target {target}
.address_size 64
.extern .shared .align 16 .b8 memory[];
.visible .entry test({parameters})
.reqntid {threads}
{{
{REGISTERS}
{loads}
mov.u32 %r0, %tid.x;
{body}
ret;
}}
"""
    )


def run(
    body: str, inputs: Sequence[np.ndarray] = (), outputs: Sequence[np.ndarray] = (), *, threads: int = 32, **options: Any
) -> tuple[list[np.ndarray], ptx.Report]:
    """Runs `body`; `outputs` are examples of the results."""
    options = {"grid": (1,), "shared_memory": 4096} | options
    program = kernel(body, threads, len(inputs) + len(outputs))
    return ptx.execute(program, options.pop("grid"), inputs, [(o.shape, o.dtype) for o in outputs], **options)


UNSIGNED = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}


def apply(instruction: str, sources: Sequence[np.ndarray], bits: int) -> np.ndarray:
    """The results of one instruction on many sources, as bits; `{d}` is its result, `{0}`, `{1}` and so on its sources.

    Args:
      sources: unsigned arrays [n], n a multiple of 32.
      bits: of the result; 1 for a predicate, which comes back as 0 or 1 of 8 bits.
    """
    names = {16: "%h", 32: "%r", 64: "%d"}
    size = sources[0].size
    lines = ["mov.u32 %r1, %ctaid.x;", "mad.lo.s32 %r2, %r1, 256, %r0;", "cvt.u64.u32 %d10, %r2;"]
    held = []
    for i, source in enumerate(sources):
        wide = source.dtype.itemsize
        register = f"{names[8 * wide]}{20 + i}"
        lines += [f"mad.lo.s64 %d11, %d10, {wide}, %d{i};", f"ld.global.b{8 * wide} {register}, [%d11];"]
        held.append(register)
    out = 8 if bits == 1 else bits
    result = "%p1" if bits == 1 else f"{names[bits]}40"
    lines.append(instruction.format(*held, d=result) + ";")
    if bits == 1:
        lines.append("selp.b16 %h40, 1, 0, %p1;")
        result = "%h40"
    lines += [f"mad.lo.s64 %d11, %d10, {out // 8}, %d{len(sources)};", f"st.global.b{out} [%d11], {result};"]
    threads = min(size, 256)
    found, report = run("\n".join(lines), sources, [np.zeros(size, UNSIGNED[out])], threads=threads, grid=(size // threads,))
    assert not report.problems, report.summary()
    return found[0]
