"""A value that all threads share needs no load.

Constant memory is 64 KB of device memory behind a small cache of its own, which gives one word per pass to a whole
warp. An instruction can name such a word as an operand, `c[bank][offset]`, so a value that all threads share costs no
load and no register; on Hopper the assembler also reads two of them at once into registers that a warp shares (ULDC).
Kernel parameters live there: every pointer that JAX or Triton passes is read as `c[0x0][...]`.

It pays for coefficients, sizes and strides that all threads share. It does not pay for tables that each thread reads at
its own index: a warp that reads 32 different words needs 32 passes, where shared memory or the first-level cache need
one or a few. A value known at compile time (`tl.constexpr`) is cheaper still: it becomes part of the instruction.

JAX, Pallas and Triton cannot declare constant memory: arrays are pointers into device memory, and a constant is a
parameter or a constexpr. Texture memory is not accessible either: a texture is an object that the driver binds to an
array with a layout of its own, and XLA passes plain pointers to kernels. Since Volta, textures share the first-level
cache, so all they add is interpolation and border handling, which are arithmetic and masks here.

Sources: NVIDIA, CUDA Programming Guide v13, "GPU Device Memory Spaces" and "Compute Capabilities" (64 KB; a cache of 8 KB
per multiprocessor); NVIDIA, CUDA C++ Best Practices Guide, "Constant Memory"; NVIDIA, Volta Tuning Guide, "Unified Shared
Memory/L1/Texture Cache"; Triton documentation, triton.language.constexpr.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.guide import by_hand, evidence
from experiments.guide.topic import Case, Counted, Topic, Variant, normal

COEFFICIENTS = np.array([0.5, -1.25, 2.0, 0.75, -0.125, 1.5, -2.5, 0.25], np.float32)
WARP = 32
_BITS = [f"0f{int(c.view(np.uint32)):08X}" for c in COEFFICIENTS]
_TABLE = f".const .align 4 .f32 table[8] = {{{', '.join(_BITS)}}};"


def _text(lines: Sequence[str]) -> str:
    """A kernel with the coefficients in constant memory, `table`, and the address of its thread's element in %d3 and %d4."""
    place = ["mul.wide.u32 %d2, %r0, 4;", "add.s64 %d3, %d0, %d2;", "add.s64 %d4, %d1, %d2;"]
    return by_hand.kernel([*place, *lines]).replace(".visible", f"{_TABLE}\n.visible")


def polynomial(where: str) -> str:
    """y = the polynomial of x by Horner's rule, 32 elements; the coefficients are behind them in x ("device memory"), in
    constant memory, or in the instructions."""
    lines = ["ld.global.f32 %f0, [%d3];", "mov.f32 %f1, 0f00000000;"]
    for n, bits in enumerate(_BITS):
        if where == "in the instructions":
            lines.append(f"fma.rn.f32 %f1, %f1, %f0, {bits};")
        else:
            load = (
                f"ld.global.f32 %f2, [%d0+{4 * (WARP + n)}];"
                if where == "device memory"
                else f"ld.const.f32 %f2, [table+{4 * n}];"
            )
            lines += [load, "fma.rn.f32 %f1, %f1, %f0, %f2;"]
    return _text([*lines, "st.global.f32 [%d4], %f1;"])


def code_figures(counted: Counted, where: str) -> Mapping[str, float]:
    text = evidence.disassembly(polynomial(where))
    code = evidence.machine_code(polynomial(where))
    # Bank 3 holds what a program declares, bank 0 parameters.
    operands, by_load = len(re.findall(r"c\[0x3\]", text)), len(re.findall(r"(?<!U)LDC.*c\[0x3\]", text))
    loads = sum(opcode.startswith("LDG") for opcode in code) + by_load
    return {"instructions": len(code), "loads": loads, "constant_operands": operands}


def lookup_figures(counted: Counted, constant: bool) -> Mapping[str, float]:
    """Constant memory gives a warp one word per pass; the first-level cache a line of 128 bytes."""
    (index,) = counted.case.draw(np.random.default_rng(0), *counted.size)
    words = np.unique(index)
    return {"constant_passes": words.size if constant else np.unique(words * 4 // 128).size}


def reference(x: np.ndarray) -> list[np.ndarray]:
    value = np.zeros(WARP)
    for coefficient in COEFFICIENTS:
        value = value * x[:WARP].astype(np.float64) + coefficient
    return [value]


def _variant(where: str) -> Variant:
    # The executor knows no .const, so that variant is assembled and not run.
    run = None if where == "constant memory" else lambda x: by_hand.run(polynomial(where).replace(_TABLE, ""), x)[0][:WARP]
    return Variant(where, run, functools.partial(code_figures, where=where))


def _polynomial_case(name: str, before: str, after: str) -> Case:
    return Case(
        name=name,
        kind="ptx",
        variants=(_variant(before), _variant(after)),
        figure="loads",
        draw=lambda rng: [np.concatenate([normal(rng, WARP), COEFFICIENTS])],
        reference=reference,
        sizes={"check": ()},
    )


def _table_case(name: str, values: int) -> Case:
    of = lambda constant: functools.partial(lookup_figures, constant=constant)
    return Case(
        name=name,
        kind="host",
        variants=(Variant("first-level cache", None, of(False)), Variant("constant memory", None, of(True))),
        figure="constant_passes",
        draw=lambda rng: [rng.integers(0, values, WARP)],
        reference=list,
        sizes={"check": ()},
    )


def answer() -> str:
    words = set(re.findall(r"c.0x0..0x[0-9a-f]+.", evidence.disassembly(polynomial("in the instructions"))))
    return f"{len(words)}: the pointers to x and y, the stack pointer, and a memory descriptor."


def picture(figure: Any, row: Mapping[str, Any]) -> None:
    """Passes of a warp over the size of the table that its threads read at random."""
    axes, sizes, rng = figure.subplots(), [2**n for n in range(9)], np.random.default_rng(0)
    drawn = [[np.unique(rng.integers(0, size, WARP)) for _ in range(200)] for size in sizes]
    axes.plot(sizes, [np.mean([words.size for words in of]) for of in drawn], "o-", color="#D55E00", label="constant memory")
    lines = [np.mean([np.unique(words * 4 // 128).size for words in of]) for of in drawn]
    axes.plot(sizes, lines, "o-", color="#0072B2", label="first-level cache")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_xlabel("words of the table; each of 32 threads reads one at random", fontsize=9)
    axes.set_ylabel("passes of a warp", fontsize=9)
    axes.set_ylim(0)
    axes.grid(color="#D9D9D9", linewidth=0.6)
    axes.legend(fontsize=9)


TOPIC = Topic(
    name="constant_memory",
    what="constants and parameters instead of loads; why there are no textures",
    text=__doc__ or "",
    picture=picture,
    kernel="every kernel takes sizes and strides as `tl.constexpr` (`kernels/runtime/launch.py`), so that they are part of its "
    "instructions; its pointers are parameters",
    exercise="How many words of the parameter bank does the last variant's machine code read?",
    answer=answer,
    cases=(
        _polynomial_case("eight coefficients for all threads", "device memory", "constant memory"),
        _polynomial_case("known when compiled", "constant memory", "in the instructions"),
        _table_case("a table of 256 words, an index per thread", 256),
        _table_case("a table, the same index for all", 1),
    ),
)
