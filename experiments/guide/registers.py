"""Fewer registers per thread make room for more threads, until values spill.

A multiprocessor has 65,536 registers of 4 bytes for all its threads: 32 for each of 2,048 threads use them up; with 64,
half of the threads fit. The assembler allocates as many as a kernel's values need, 255 at most. A cap (`maxnreg` in
Triton and PTX, `--maxrregcount` for the assembler, `__launch_bounds__` in CUDA C++) forces it to use fewer: it
recomputes values, reorders instructions, and *spills* what still does not fit to local memory, which is device memory
behind the first-level cache.

A cap pays where it makes room for another block (below, a third one for a spill of 4 bytes), and where the resident
threads do not yet saturate memory. It does not pay where they do, since more threads then only wait for the same
memory; and each thread stores and reloads every spilled value. So look at spills first, then at resident blocks, and
measure last.

The kernel is the row-wise softmax of the occupancy topic, assembled with and without a cap. jax-triton sets no cap, so
these cases are counted, not timed; in this repository block size and number of warps decide how many registers a thread
needs.

A cap has a lower limit: the assembler refuses fewer than about 90 registers for a kernel that multiplies with Hopper's
wgmma.

Sources: NVIDIA, CUDA Programming Guide v13, "Kernel Launch and Occupancy" and "Compute Capabilities"; NVIDIA, PTX ISA,
".maxnreg"; Triton documentation, triton.Config; Volkov 2010, Better performance at lower occupancy (GTC).
"""

from __future__ import annotations

import functools
import pathlib
import re
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Any

from experiments.guide.occupancy import softmax, softmax_reference
from experiments.guide.topic import Case, Counted, Topic, Variant
from experiments.measuring.device_model import constants
from kernels.runtime import devices
from kernels.verification import aot, residency

NATURAL = 0


@functools.lru_cache(maxsize=64)
def assembled(text: str, cap: int) -> tuple[int, int]:
    """Registers per thread and bytes spilled of a kernel's PTX, with at most `cap` registers; NATURAL for no cap.

    The cap is a directive of the kernel, as Triton writes it: the assembler's own option does not count beside `.reqntid`.
    """
    architecture = re.search(r"\.target\s+(sm_(\d+)\w?)", text)
    assert architecture is not None
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "kernel.ptx"
        source.write_text(re.sub(r"(\.reqntid [^\n]*)", rf"\1\n.maxnreg {cap}", text) if cap else text)
        assembler = str(aot.toolkit(int(architecture[2]) // 10) / "bin" / "ptxas")
        command = [assembler, "-v", f"--gpu-name={architecture[1]}", str(source), "-o", str(source) + ".cubin"]
        log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    number = lambda pattern: sum(map(int, re.findall(pattern, log)))
    return number(r"Used (\d+) registers"), number(r"(\d+) bytes spill")


def figures(counted: Counted, cap: int) -> Mapping[str, float]:
    """What the cap changes; a spill's bytes are of stores and loads, per thread."""
    (found,), f = counted.resources, counted.figures
    registers, spilled = assembled(found.ptx, cap)
    warps = int(f["threads"]) // 32
    with devices.target(counted.kind) as device:
        taken = aot.Resources(registers, spilled, found.shared_memory, frozenset(), "")
        resident = residency.blocks_per_core(taken, warps, device)
        occupancy = resident * warps * 32 / device.core_threads
    asked = resident * f["threads"] * f["loads_in_a_row"] * f["load_bytes"]
    share = min(1.0, asked / constants(counted.kind)["in_flight"])
    now = {"registers": registers, "spilled_bytes": spilled, "resident_blocks": resident, "occupancy": occupancy}
    return now | {"bytes_in_flight": asked, "read_share": share}


def _case(name: str, caps: tuple[int, ...], figure: str, warps: int) -> Case:
    label = lambda cap: f"at most {cap}" if cap else "no cap"
    make = lambda cap: Variant(label(cap), functools.partial(softmax, warps=warps), functools.partial(figures, cap=cap))
    sizes = {"check": (5, 1001), "compile": (2048, 16_384)}
    return Case(name=name, variants=tuple(map(make, caps)), figure=figure, reference=softmax_reference, sizes=sizes)


def picture(figure: Any, row: Mapping[str, Any]) -> None:
    """Occupancy and spills over the cap, one above the other."""
    case = next(case for case in row["cases"] if case["name"] == "a cap that spills")
    found = [variant["compiled"] for variant in case["variants"].values()]
    registers = [f["registers"] for f in found]
    upper, lower = figure.subplots(2, 1, sharex=True)
    lines = ((upper, "occupancy", "occupancy", "#0072B2"), (lower, "spilled_bytes", "bytes spilled\nper thread", "#D55E00"))
    for axes, name, head, colour in lines:
        axes.plot(registers, [f[name] for f in found], "o-", color=colour)
        axes.set_ylabel(head, fontsize=9)
        axes.set_ylim(0)
        axes.grid(color="#D9D9D9", linewidth=0.6)
    lower.set_xlabel("registers per thread (compiled for an H200, softmax of a row of 16,384 in 8 warps)", fontsize=9)


def answer() -> str:
    most = [65_536 // threads // 8 * 8 for threads in (2048, 1024, 512)]
    return f"{most[0]}, {most[1]} and {min(most[2], 255)}: 65,536 registers divided by the threads, in steps of 8."


TOPIC = Topic(
    name="registers",
    what="fewer registers for more threads, until values spill",
    text=__doc__ or "",
    kernel="`kernels/batch_norm_act/config.py` (`MOST_WARPS`): a block of 512 threads has at most 128 registers for each, so "
    "that a block always fits a multiprocessor; `kernels/verification/aot.py` counts spills, and a test allows none",
    picture=picture,
    exercise="How many registers may each thread have so that 2,048, 1,024 or 512 threads are resident?",
    answer=answer,
    cases=(
        _case("a cap that spills", (NATURAL, 64, 48, 40, 32), "spilled_bytes", 8),
        _case("a cap where memory is busy", (NATURAL, 64), "read_share", 8),
        _case("a cap for a third block", (NATURAL, 40), "resident_blocks", 16),
    ),
)
