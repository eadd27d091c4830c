"""The executor's matrix products and tiles against NumPy, and what it finds where a wait or a fence is missing."""

from __future__ import annotations

import dataclasses
import re

import ml_dtypes
import numpy as np
import pytest

from kernels.linear_act import pallas, vjp
from kernels.verification.ptx import mosaic
from tests.kernels import ptx_texts

DTYPES = {"f16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}


def draw(rng: np.random.Generator, kind: str, *shape: int) -> np.ndarray:
    """Small integers and halves: every product and sum of them is exact, whatever the order."""
    return (rng.integers(-8, 9, shape) / 2).astype(DTYPES.get(kind, np.dtype(np.float32)))


def words(a: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(a).view(np.uint32)


@pytest.mark.parametrize(("kind", "depth"), [("f16", 16), ("f16", 8), ("bf16", 16), ("bf16", 8), ("tf32", 8), ("tf32", 4)])
def test_a_product_of_a_warp(kind: str, depth: int) -> None:
    """Which thread holds what: the figures of the manual's section on mma.m16n8k16 and its siblings, written out."""
    rng = np.random.default_rng(depth)
    a, b, c = draw(rng, kind, 16, depth), draw(rng, kind, depth, 8), draw(rng, "f32", 16, 8)
    each = 1 if kind == "tf32" else 2  # elements of a register
    lanes = range(32)
    held_a = [
        [a[lane // 4 + 8 * (r % 2), each * (lane % 4) + 4 * each * (r // 2) :][:each] for lane in lanes]
        for r in range(depth // (2 * each))
    ]
    held_b = [[b[each * (lane % 4) + 4 * each * r :, lane // 4][:each] for lane in lanes] for r in range(depth // (4 * each))]
    held_c = [[c[lane // 4 + 8 * (r // 2), 2 * (lane % 4) + r % 2] for lane in lanes] for r in range(4)]
    given = [words(np.array(registers)).reshape(-1, 32) for registers in (held_a, held_b, held_c)]
    count = [len(g) for g in given]
    loads, names = [], []
    for i, n in enumerate(count):
        registers = [f"%r{10 + 10 * i + j}" for j in range(n)]
        loads += [f"ld.global.b32 {r}, [%d{20 + i}+{128 * j}];" for j, r in enumerate(registers)]
        names.append("{" + ", ".join(registers) + "}")
    shape = f"m16n8k{depth}.row.col.f32.{kind}.{kind}.f32"
    body = "cvt.u64.u32 %d10, %r0; shl.b64 %d10, %d10, 2;" + "".join(f"add.s64 %d{20 + i}, %d{i}, %d10;" for i in range(4))
    body += "".join(loads) + f"mma.sync.aligned.{shape} {names[2]}, {names[0]}, {names[1]}, {names[2]};"
    body += "".join(f"st.global.b32 [%d23+{128 * j}], %r{30 + j};" for j in range(4))
    (found,), report = ptx_texts.run(body, given, [np.zeros((4, 32), np.float32)])
    expected = a.astype(np.float32) @ b.astype(np.float32) + c
    for r in range(4):
        for lane in lanes:
            assert found[r, lane] == expected[lane // 4 + 8 * (r // 2), 2 * (lane % 4) + r % 2]
    assert not report.problems


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_matrices_of_a_warp_are_loaded_and_stored(count: int, transposed: bool) -> None:
    """Loaded as written and stored transposed, or the other way round: each 8x8 matrix comes out transposed."""
    given = np.random.default_rng(count).integers(0, 1 << 16, (count, 8, 8), np.uint16)
    registers = "{" + ", ".join(f"%r{20 + i}" for i in range(count)) + "}"
    load, store = (".trans", "") if transposed else ("", ".trans")
    copy = "".join(f"ld.global.b32 %r30, [%d11+{128 * i}]; st.shared.b32 [%r10+{128 * i}], %r30;" for i in range(count))
    back = "".join(f"ld.shared.b32 %r30, [%r10+{128 * i}]; st.global.b32 [%d12+{128 * i}], %r30;" for i in range(count))
    body = f"""
      cvt.u64.u32 %d10, %r0; shl.b64 %d10, %d10, 2; add.s64 %d11, %d0, %d10; add.s64 %d12, %d1, %d10;
      shl.b32 %r10, %r0, 2; mov.u32 %r11, memory; add.s32 %r10, %r10, %r11; {copy} bar.sync 0;
      shl.b32 %r12, %r0, 4; and.b32 %r12, %r12, {128 * count - 1}; add.s32 %r12, %r12, %r11;
      ldmatrix.sync.aligned.m8n8.x{count}{load}.shared.b16 {registers}, [%r12];
      stmatrix.sync.aligned.m8n8.x{count}{store}.shared.b16 [%r12], {registers}; bar.sync 0; {back}
    """
    (found,), report = ptx_texts.run(body, [given], [np.zeros_like(given)])
    np.testing.assert_array_equal(found, given.swapaxes(1, 2))
    assert not report.problems


# A product of four warps: A [64, 16] and B [16, 8] lie in shared memory as tiles of 8 rows of 16 bytes, one after another.
A_BYTES, B_BYTES = 64 * 16 * 2, 8 * 16 * 2
DESCRIPTOR = "and.b32 %r20, {at}, 0x3FFFF; shr.u32 %r20, %r20, 4; cvt.u64.u32 {to}, %r20; or.b64 {to}, {to}, {strides};"
STRIDES = (128 >> 4) << 16 | (256 >> 4) << 32  # between tiles along the depth, and along the rows
WGMMA = f"""
  cvt.u64.u32 %d10, %r0; shl.b64 %d10, %d10, 2; add.s64 %d11, %d0, %d10; add.s64 %d12, %d1, %d10; mul.wide.u32 %d14, %r0, 16;
  add.s64 %d13, %d2, %d14; shl.b32 %r10, %r0, 2; mov.u32 %r11, memory; add.s32 %r10, %r10, %r11;
  {"".join(f"ld.global.b32 %r12, [%d11+{512 * i}]; st.shared.b32 [%r10+{512 * i}], %r12;" for i in range(A_BYTES // 512))}
  setp.lt.u32 %p1, %r0, {B_BYTES // 4};
  @%p1 ld.global.b32 %r12, [%d12]; @%p1 st.shared.b32 [%r10+{A_BYTES}], %r12;
  {{proxy}} {{barrier}}
  {DESCRIPTOR.format(at="%r11", to="%d20", strides=STRIDES)}
  add.s32 %r21, %r11, {A_BYTES};
  {DESCRIPTOR.format(at="%r21", to="%d21", strides=STRIDES)}
  mov.b32 %r30, 0; mov.b32 %r31, 0; mov.b32 %r32, 0; mov.b32 %r33, 0;
  setp.eq.u32 %p2, %r0, %r0;
  {{fence}}
  wgmma.mma_async.sync.aligned.m64n8k16.f32.KIND.KIND {{{{%r30, %r31, %r32, %r33}}}}, %d20, %d21, %p2, 1, 1, 0, 0;
  wgmma.commit_group.sync.aligned;
  {{early}}
  {{wait}}
  {{late}}
  st.global.v4.b32 [%d13], {{{{%r30, %r31, %r32, %r33}}}};
"""
RIGHT = {
    "proxy": "fence.proxy.async;",
    "barrier": "bar.sync 0;",
    "fence": "wgmma.fence.sync.aligned;",
    "wait": "wgmma.wait_group.sync.aligned 0;",
    "early": "",
    "late": "bar.sync 0; st.shared.b32 [%r10], %r12;",
}


def tiled(a: np.ndarray) -> np.ndarray:
    """[rows, 16] as tiles of 8 rows by 8 columns, row of tiles by row."""
    return a.reshape(-1, 8, 2, 8).swapaxes(1, 2)


@pytest.mark.parametrize("kind", DTYPES)
def test_a_product_of_four_warps(kind: str) -> None:
    rng = np.random.default_rng(3)
    a, b = draw(rng, kind, 64, 16), draw(rng, kind, 16, 8)
    arrays = [words(tiled(a)), words(tiled(b.T))], [np.zeros((128, 4), np.float32)]
    text = WGMMA.replace("KIND", kind)
    (found,), report = ptx_texts.run(text.format(**RIGHT), *arrays, threads=128)
    assert not report.problems, report.summary()
    expected = a.astype(np.float32) @ b.astype(np.float32)
    for thread in range(128):
        warp, lane = divmod(thread, 32)
        rows, column = 16 * warp + lane // 4, 2 * (lane % 4)
        np.testing.assert_array_equal(found[thread], [*expected[rows, column:][:2], *expected[rows + 8, column:][:2]])
    faults = {
        "no fence.proxy.async between a store and wgmma": {"proxy": ""},
        "wgmma reads what is not ordered before it": {"barrier": ""},
        "no wgmma.fence between a write to a register and wgmma": {"fence": ""},
        "a product that is never waited for": {"wait": ""},
        "write over what is being read": {"early": "st.shared.b32 [%r10], %r12;"},
    }
    for words_of_it, change in faults.items():
        (found,), report = ptx_texts.run(text.format(**RIGHT | change), *arrays, threads=128)
        assert words_of_it in " ".join(what for what, _ in report.problems), (change, report.summary())
        if "wait" in change:
            assert np.isnan(found).all()


# The Mosaic GPU kernel of linear_act: tiles by TMA, barriers that count bytes, four warps that fetch and eight that multiply.


def operands(rows: int, inputs: int, outputs: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(rows)
    x, w, b = draw(rng, "bf16", rows, inputs), draw(rng, "bf16", inputs, outputs), draw(rng, "f32", outputs)
    return x, w, np.zeros(3, np.uint32), b


def dense(*given: np.ndarray) -> mosaic.Compiled:
    static = vjp._static("relu", 0.01, 0.0, False)
    return mosaic.compiled(lambda x, w, state, b: pallas.forward(x, w, b, state, **COMPILED, static=static)[0], *given)


def expected_of(x: np.ndarray, w: np.ndarray, _: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.maximum(x.astype(np.float64) @ w.astype(np.float64) + b, 0).astype(ml_dtypes.bfloat16)


COMPILED = {"implementation": "pallas"}


@pytest.mark.parametrize(("rows", "inputs", "outputs", "seed"), [(304, 192, 192, 0), (136, 448, 320, 1)])
def test_the_mosaic_gpu_kernel_as_it_is_compiled(rows: int, inputs: int, outputs: int, seed: int) -> None:
    """Rows and columns that its tiles hang over."""
    given = operands(rows, inputs, outputs)
    (found,), report = mosaic.execute(dense(*given), *given, seed=seed)
    assert not report.problems, report.summary()
    assert {"cp.async.bulk.tensor.4d.global.shared::cta.bulk_group", "mbarrier.try_wait.parity.shared.b64"} <= set(
        report.executed
    )
    # The sums are exact, so all that is left is one rounding to bfloat16.
    np.testing.assert_array_equal(found, expected_of(*given))


def test_what_the_mosaic_gpu_kernel_would_lack() -> None:
    given = operands(136, 192, 128)
    kernel = dense(*given)
    faults = {
        "no fence.proxy.async between a store and cp": (r"fence\.proxy\.async\S*;", ""),
        # The first wait behind the fence is for the tiles that the first product reads.
        "on its way": (r"(?s)(wgmma\.fence.*?)mbarrier\.try_wait\S* (P1),[^;]*;", r"\1setp.eq.u32 \2, 0, 0;"),
        "never waited for": (r"cp\.async\.bulk\.wait_group\s+0;", ""),
    }
    for words_of_it, (pattern, instead) in faults.items():
        changed = re.sub(pattern, instead, kernel.ptx)
        assert changed != kernel.ptx
        _, report = mosaic.execute(dataclasses.replace(kernel, ptx=changed), *given)
        assert words_of_it in " ".join(what for what, _ in report.problems), report.summary()
