"""What can be counted in a compiled kernel or program, without running it."""

from __future__ import annotations

import collections
import functools
import pathlib
import re
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from experiments.guide.executed import instruction_widths
from experiments.guide.topic import Case, Counted, Size, Variant
from experiments.measuring import counting, device_model
from experiments.measuring.clock import TOLERANCE, relative_error
from kernels.runtime import dispatch, launch
from kernels.verification import aot, residency

_OPCODE = re.compile(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+ )?([A-Z][\w.]*)", re.M)


@functools.lru_cache(maxsize=64)
def disassembly(ptx: str) -> str:
    """The machine code that the assembler makes of a kernel, as text."""
    import triton

    tools = pathlib.Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    architecture = re.search(r"\.target\s+(sm_(\d+)\w?)", ptx)
    assert architecture is not None
    with tempfile.TemporaryDirectory() as folder:
        source, binary = pathlib.Path(folder) / "kernel.ptx", pathlib.Path(folder) / "kernel.cubin"
        source.write_text(ptx)
        assembler = str(aot.toolkit(int(architecture[2]) // 10) / "bin" / "ptxas")
        subprocess.run(
            [assembler, f"--gpu-name={architecture[1]}", str(source), "-o", str(binary)], check=True, capture_output=True
        )
        return subprocess.run([str(tools / "nvdisasm"), "-c", str(binary)], capture_output=True, text=True, check=True).stdout


def machine_code(ptx: str) -> list[str]:
    """The instructions that the assembler makes of a kernel, in order, without the padding behind the end."""
    return [opcode for opcode in _OPCODE.findall(disassembly(ptx)) if opcode != "NOP"]


def loads_in_a_row(code: list[str]) -> int:
    """The most loads that are issued with no arithmetic on floating-point numbers between: so many are in flight at once."""
    most = current = 0
    for opcode in code:
        if opcode.startswith(("LDG", "LDGSTS")):
            current += 1
            most = max(most, current)
        elif opcode.startswith(("FADD", "FMUL", "FFMA", "MUFU", "HFMA", "HMMA", "HGMMA")):
            current = 0
    return most


def of_kernel(call: launch.Launch, found: aot.Resources, device: dispatch.Device) -> dict[str, float]:
    """The figures of one launch; those of the instructions are of the whole program text, not of what is executed."""
    code = machine_code(found.ptx)
    kinds = collections.Counter(opcode.partition(".")[0] for opcode in code)
    resident = residency.blocks_per_core(found, call.num_warps, device)
    return {
        "blocks": int(np.prod(call.grid)),
        "threads": 32 * call.num_warps,
        "registers": found.registers,
        "spilled_bytes": found.spilled,
        "shared_bytes": found.shared_memory,
        "resident_blocks": resident,
        "occupancy": resident * call.num_warps * 32 / device.core_threads,
        "load_bytes": float(np.mean(instruction_widths(found.ptx, "load"))),
        "store_bytes": float(np.mean(instruction_widths(found.ptx, "store"))),
        "asynchronous_copies": kinds["LDGSTS"],
        "instructions": len(code),
        "branches": kinds["BRA"] - 1,  # the last one, behind the end, jumps to itself and is never reached
        "special": kinds["MUFU"],
        "loads_in_a_row": loads_in_a_row(code),
    }


def of_launches(case: Case, variant: Variant, size: Size, kind: str) -> dict[str, float]:
    """A variant of our own kernels, compiled for a device of this kind; of several kernels, the sums of counts, the largest
    need of registers and memory, and the least occupancy."""
    assert variant.call is not None
    with launch.recording() as calls, aot.lowering_for(kind):
        jax.eval_shape(lambda *inputs: variant.call(*inputs, implementation="triton"), *case.shapes(size))  # type: ignore[misc]
        device = dispatch.device()
    resources = {call: aot.kernel_resources(call, kind) for call in dict.fromkeys(calls)}
    each = {call: of_kernel(call, found, device) for call, found in resources.items()}
    figures: dict[str, float] = {"kernels": len(calls)}
    for name in next(iter(each.values())):
        values = [each[call][name] for call in calls]
        if name in ("occupancy", "resident_blocks", "load_bytes", "store_bytes"):
            figures[name] = min(values)
        elif name in ("registers", "shared_bytes", "threads", "loads_in_a_row"):
            figures[name] = max(values)
        else:
            figures[name] = sum(values)
    counted = Counted(case, variant.name, size, tuple(calls), tuple(resources[call] for call in calls), figures, kind)
    return figures | dict(variant.figures(counted))


def of_program(case: Case, variant: Variant, size: Size, kind: str) -> dict[str, float]:
    """A variant that XLA compiles: kernels, bytes, and the time that these need."""
    assert variant.call is not None
    shapes = case.shapes(size)
    if dispatch.device().platform == "cuda":
        compiled = jax.jit(variant.call).lower(*shapes).compile()
    else:
        compiled = aot.compile_for(kind, variant.call, *shapes)
    count, moved = counting.total(compiled)
    figures = {"kernels": count, "bytes": moved, "modelled_ms": modelled(moved, count, kind)}
    return figures | dict(variant.figures(Counted(case, variant.name, size, figures=figures, kind=kind)))


def modelled(moved: float, launches: int, kind: str = "nvidia-h200") -> float:
    """Milliseconds: bytes at the bandwidth that well-written kernels reach, and the launches."""
    return 1e3 * device_model.seconds(kind, moved, launches)


def counted(case: Case, variant: Variant, kind: str) -> Mapping[str, float]:
    """All figures of a variant at the size of a GPU's run."""
    size = next(case.sizes[name] for name in ("cuda", "compile", "check") if name in case.sizes)
    if variant.call is None or case.kind in ("host", "ptx"):
        return dict(variant.figures(Counted(case, variant.name, size, kind=kind)))
    return (of_launches if case.kind == "kernel" else of_program)(case, variant, size, kind)


def outputs(found: Any) -> list[np.ndarray]:
    """As the reference has them: an array that was made in parts is put together."""
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(found)]
    return [np.concatenate(leaves)] if len(leaves) > 1 else leaves


def error(case: Case, variant: Variant, size: Size, seed: int = 0) -> float:
    """Relative difference of a variant from the reference on random inputs; of a kernel in the interpreter, or on the GPU."""
    assert variant.call is not None
    inputs, call = case.draw(np.random.default_rng(seed), *size), variant.call
    if case.kind == "kernel":
        on_gpu = dispatch.device().platform == "cuda"
        call = functools.partial(call, implementation="triton" if on_gpu else "interpret")
        call = jax.jit(call) if on_gpu else call
    found = call(*inputs)
    return relative_error(outputs(found), [np.asarray(x, np.float64) for x in case.reference(*inputs)])


def require_right(case: Case, variant: Variant) -> None:
    """Raises ValueError where a variant is wrong at the size of the check."""
    found = error(case, variant, case.sizes["check"])
    if not found <= TOLERANCE[case.dtype]:
        raise ValueError(f"wrong: relative error {found:.2g}, allowed {TOLERANCE[case.dtype]:g}")
