"""Runs a kernel of Pallas for Mosaic GPU as it is compiled for a GPU of compute capability 9.0.

Its tiles move by TMA, through descriptors that its host code makes at each launch. What stands in them is read from the program
that Mosaic compiles, as it logs it.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from kernels.verification import aot
from kernels.verification.ptx.bulk import TensorMap
from kernels.verification.ptx.errors import NotCoveredError, Report
from kernels.verification.ptx.grid import LIMIT, Grid, arrays_of
from kernels.verification.ptx.program import Program
from kernels.verification.ptx.steps import PARAMETERS


@dataclasses.dataclass(frozen=True)
class Compiled:
    """The one Mosaic GPU kernel of a function: its PTX, the code of its host side, and the shape and dtype of its results."""

    ptx: str
    host: str
    outputs: tuple[tuple[tuple[int, ...], Any], ...]


def compiled(fn: Callable[..., Any], *inputs: Any, kind: str = "nvidia-h200") -> Compiled:
    """Compiles the kernel for a kind of GPU; `inputs` are arrays or shapes, and the kernel's own operands.

    Raises:
      NotCoveredError: Mosaic has compiled this kernel before in this process, and does not log it again.
    """
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in inputs]
    with tempfile.TemporaryDirectory() as folder, aot.environment(MOSAIC_GPU_DUMP_TO=folder):
        aot.compile_for(kind, fn, *shapes)
        logged = [sorted(pathlib.Path(folder).glob(f"*{end}")) for end in (".ptx", ".log")]
        if [len(paths) for paths in logged] != [1, 1]:
            raise NotCoveredError(
                f"{len(logged[0])} kernels logged by Mosaic: of one that it has compiled before there is no log"
            )
        ptx, log = (path.read_text() for (path,) in logged)
    with aot.lowering_for(kind):
        results = jax.tree.leaves(jax.eval_shape(fn, *shapes))
    return Compiled(ptx, log.split("// -----// IR Dump")[1], tuple((o.shape, np.dtype(o.dtype)) for o in results))


def execute(kernel: Compiled, *inputs: Any, seed: int = 0) -> tuple[list[np.ndarray], Report]:
    """Runs the kernel on its operands.

    Args:
      seed: draws in which order tiles arrive.

    Returns:
      The kernel's results, and what was seen.

    Raises:
      ExecutionError: what a GPU would answer with an error, a hang or garbage.
    """
    program = Program(kernel.ptx)
    if len(program.kernel.parameters) != 1:
        raise NotCoveredError(f"a kernel of {len(program.kernel.parameters)} parameters")
    arrays, pointed = arrays_of(program, [np.asarray(a) for a in inputs], kernel.outputs, (), (), True)
    maps = {
        PARAMETERS + at: TensorMap(pointed[number], sizes, strides, box, bits // 8, span)
        for at, number, sizes, strides, box, bits, span in _descriptors(kernel.host)
    }
    grid, shared_memory = _launch(kernel.host)
    parameters = {name: bytes(size) for name, size in program.kernel.parameters.items()}
    run = Grid(program, grid, arrays, parameters, shared_memory, False, seed, True, LIMIT, maps)
    report = run.run()
    results = [
        array.content.view(dtype).reshape(shape)
        for array, (shape, dtype) in zip(pointed[len(inputs) :], kernel.outputs, strict=True)
    ]
    return results, report


Descriptor = tuple[int, int, tuple[int, ...], tuple[int, ...], tuple[int, ...], int, int]


def _descriptors(host: str) -> list[Descriptor]:
    """Of each descriptor: its place in the parameter, the number of the kernel's argument, sizes, strides, box, bits, span."""
    code, made = host[: host.index("gpu.launch")], _values(host)
    number = lambda name: _constant(made, name)
    found = []
    for before, arguments in re.findall(r"(?s)(.*?)call @mosaic_gpu_init_tma_desc\(([^)]*)\)", code):
        place, pointer, kind, rank, _, _, span, _ = arguments.split(", ")
        # Sizes, strides and box are stored in this order, an element at a time, right before the call.
        stored = re.findall(r"(?:llvm|memref)\.store (%\w+), ", before)
        view = _view(made, pointer)
        sizes, strides = (tuple(map(int, text.split(", "))) for text in re.findall(r"(?:sizes|strides): \[([\d, ]+)\]", view))
        bits = {1: 8, 2: 16, 3: 32, 4: 64, 5: 16, 6: 32, 7: 16}.get(number(kind))
        offset = re.match(r"llvm\.getelementptr %\w+\[(\d+)\]", made[place])
        if bits is None or offset is None or len(sizes) != number(rank):
            raise NotCoveredError(f"the descriptor {arguments}")
        boxes = tuple(map(number, stored[-len(sizes) :]))
        found.append((int(offset[1]), _argument(made, view), sizes, strides, boxes, bits, number(span)))
    return found


def _view(made: dict[str, str], name: str) -> str:
    """The operation that makes the view which a pointer is to."""
    text = made[name]
    while "memref.reinterpret_cast" not in text:
        text = made[re.findall(r"%[\w-]+", text)[0]]
    return text


def _argument(made: dict[str, str], text: str) -> int:
    while (found := re.search(r"from_kernel_arg_idx = (\d+)", text)) is None:
        text = made[re.findall(r"%[\w-]+", text)[0]]
    return int(found[1])


def _launch(host: str) -> tuple[Sequence[int], int]:
    """The grid, and the bytes of shared memory of a block."""
    found = re.search(r"gpu\.launch .*? in \((.*?)\) threads.*dynamic_shared_memory_size (%\w+)", host)
    if found is None:
        raise NotCoveredError("a launch of this form")
    made = _values(host)
    return [_constant(made, name) for name in re.findall(r"= (%\w+)", found[1])], _constant(made, found[2])


def _values(host: str) -> dict[str, str]:
    """By name, what makes each value that is there before the launch."""
    code = host[: host.index("gpu.launch")]
    return dict(re.findall(r"^ *(%[\w-]+)(?::\d+)? = (.*)$", code, re.MULTILINE))


def _constant(made: dict[str, str], name: str) -> int:
    found = re.match(r"arith\.constant (\d+)", made.get(name, ""))
    if found is None:
        raise NotCoveredError(f"{name}, which is no constant")
    return int(found[1])
