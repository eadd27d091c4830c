"""What the executor finds in memory and between threads: small kernels in pairs, a right one and one with a fault."""

from __future__ import annotations

import re

import numpy as np
import pytest

from kernels.verification import ptx
from kernels.verification.ptx import errors
from tests.kernels import ptx_texts

# %d10 is the thread's place in an array of 4 bytes an element, %r10 its place in shared memory.
PLACES = "cvt.u64.u32 %d10, %r0; shl.b64 %d10, %d10, 2; shl.b32 %r10, %r0, 2; mov.u32 %r11, memory; add.s32 %r10, %r10, %r11;"
BARRIER = "bar.sync 0;"


def floats(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.float32)


def problems(body: str, *args, **options) -> str:
    return ptx_texts.run(PLACES + body, *args, **options)[1].summary()


# One launch, faults that end it


COPY = "add.s64 %d11, %d0, %d10; add.s64 %d12, %d1, %d10; ld.global.b32 %r1, [%d11{}]; st.global.b32 [%d12], %r1;"


def test_a_kernel_that_copies() -> None:
    (found,), report = ptx_texts.run(PLACES + COPY.format(""), [floats(32)], [floats(32)])
    np.testing.assert_array_equal(found, floats(32))
    assert not report.problems
    assert report.blocks == 1
    assert report.executed["ld.global.b32"] == 1


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        (COPY.format("+4"), errors.OutOfBoundsError, "read of 4 bytes at input 0 [+]128, which has 128 bytes: thread 31"),
        (COPY.format("+-4"), errors.OutOfBoundsError, "read of 4 bytes at input 0 -4"),
        (COPY.format("+2"), errors.MisalignedError, "4 bytes at input 0 [+]2: thread 0"),
        ("add.s64 %d11, %d0, %d10; st.global.b32 [%d11], %r0;", errors.ReadOnlyError, "a write to input 0"),
        ("add.s64 %d11, %d1, %d10; st.global.b32 [%d11+128], %r0;", errors.OutOfBoundsError, "write of 4 bytes at output 0"),
        ("add.s32 %r10, %r10, 4096; st.shared.b32 [%r10], %r0;", errors.OutOfBoundsError, "shared memory"),
        ("add.s32 %r1, %r2, %r0;", errors.UndefinedRegisterError, "nothing has written"),
        ("setp.lt.u32 %p1, %r0, 16; @%p1 bra $end; bar.sync 0; $end:", errors.HangError, "16 threads .* have ended"),
        (
            "setp.lt.u32 %p1, %r0, 16; @%p1 bra $end; shfl.sync.bfly.b32 %r1, %r0, 1, 31, -1; $end:",
            errors.DivergenceError,
            "a warp .* is divided",
        ),
        ("$again: bra $again;", errors.HangError, "has not ended after 1000 instructions"),
    ],
)
def test_a_fault_ends_the_run_and_is_named(body: str, error: type[Exception], words: str) -> None:
    body = re.sub(r"(\$\w+:)", r"\n\1\n", body)
    with pytest.raises(error, match=words):
        ptx_texts.run(PLACES + body, [floats(32)], [floats(32)], limit=1000)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("frob.b32 %r1, %r0;", "`frob.b32 %r1, %r0`.*is not known"),
        ("add.foo.s32 %r1, %r0, 1;", "the modifier .foo"),
        ("ld.global.nonsense.b32 %r1, [%d0];", "nonsense"),
        ("cvt.rz.f16.f32 %h1, %r0;", "cvt with .rz"),
        ("bar.sync %r0, 32, 3;", "barrier"),
        ("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%d1}, {%d2}, {%d3}, {%d4};", "shape"),
        ("add.s32 %r1, %r0;", "1 operands|2 operands"),
        ("tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%r1], 32;", "not known"),
    ],
)
def test_what_is_not_covered_is_named(body: str, words: str) -> None:
    with pytest.raises(errors.NotCoveredError, match=words):
        ptx_texts.kernel(body)


# Reads of what nobody wrote


def test_unwritten_memory_is_found() -> None:
    read = "add.s64 %d11, %d0, %d10; {} ld.global.b32 %r1, [%d11];"
    assert not problems(read.format("st.global.b32 [%d11], %r0;"), [], [floats(32)])
    assert "global read of what nobody wrote" in problems(read.format(""), [], [floats(32)])
    assert not problems(read.format(""), [], [floats(32)], zeroed_outputs=(0,))
    assert not problems("st.shared.b32 [%r10], %r0; ld.shared.b32 %r1, [%r10];")
    assert "shared read of what nobody wrote" in problems("ld.shared.b32 %r1, [%r10];")


def test_an_output_in_place_of_an_input_begins_with_its_values() -> None:
    body = COPY.format("").replace("st.", "add.f32 %r1, %r1, %r1; st.")
    (found,), report = ptx_texts.run(PLACES + body, [floats(32)], [floats(32)], in_place=((0, 0),))
    np.testing.assert_array_equal(found, 2 * floats(32))
    assert not report.problems


# Races between warps of a block


EXCHANGE = "st.shared.b32 [%r10], %r0; {} xor.b32 %r12, %r10, 128; ld.shared.b32 %r1, [%r12]; {} st.shared.b32 [%r10], %r1;"


def test_barriers_order_warps() -> None:
    assert not problems(EXCHANGE.format(BARRIER, BARRIER), threads=64)
    assert "read of what is not ordered before it" in problems(EXCHANGE.format("", BARRIER), threads=64)
    assert "write over what is being read" in problems(EXCHANGE.format(BARRIER, ""), threads=64)
    assert not problems(EXCHANGE.replace("128", "64").format("", ""), threads=64)  # within a warp


def test_two_writers_need_an_order() -> None:
    first_warp = (
        "setp.lt.u32 %p1, %r0, 32; @%p1 st.shared.b32 [%r10], %r0; {} xor.b32 %r12, %r10, 128; @!%p1 st.shared.b32 [%r12], %r0;"
    )
    assert not problems(first_warp.format(BARRIER), threads=64)
    assert "write over a write" in problems(first_warp.format(""), threads=64)


@pytest.mark.parametrize("readers", [2, 4])
def test_every_reader_is_remembered(readers: int) -> None:
    """Warps that read the same bytes, and the first of them, not the last, is the one whom a write does not wait for."""
    body = f"""
      st.shared.b32 [%r10], %r0; bar.sync 0; ld.shared.b32 %r1, [memory]; {{}}
      setp.eq.u32 %p1, %r0, {32 * (readers - 1)}; @%p1 st.shared.b32 [memory], %r1;
    """
    assert not problems(body.format(BARRIER), threads=32 * readers)
    assert "write over what is being read" in problems(body.format(""), threads=32 * readers)


def test_two_threads_that_write_at_once_must_agree() -> None:
    assert not problems("mov.u32 %r1, 7; st.shared.b32 [memory], %r1;", threads=64)
    assert "two threads at once" in problems("st.shared.b32 [memory], %r0;")


# Between blocks


def test_blocks_without_an_order_must_not_meet() -> None:
    place = """
      mov.u32 %r1, %ctaid.x; cvt.u64.u32 %d11, %r1; shl.b64 %d11, %d11, 7;
      add.s64 %d12, %d0, %d10; {} st.global.b32 [%d12], %r1;
    """
    apart = "add.s64 %d12, %d12, %d11;"
    (found,), report = ptx_texts.run(PLACES + place.format(apart), [], [np.zeros(96, np.int32)], grid=(3,))
    np.testing.assert_array_equal(found, np.repeat([0, 1, 2], 32))
    assert not report.problems
    assert "global race: write over a write" in problems(place.format(""), [], [np.zeros(96, np.int32)], grid=(3,))


# Block 0 writes, the others wait for its count and read.
HANDED_ON = """
  mov.u32 %r1, %ctaid.x; setp.ne.u32 %p1, %r1, 0; setp.eq.u32 %p2, %r0, 0; add.s64 %d11, %d0, %d10;
  @%p1 bra $wait;
  st.global.b32 [%d11], %r0;
  bar.sync 0;
  @%p2 atom.global.gpu.{release}.add.u32 %r2, [%d1], 1;
  bra $end;
$wait:
  mov.u32 %r3, 1;
$again:
  @%p2 atom.global.gpu.{acquire}.add.u32 %r3, [%d1], 0;
  setp.eq.u32 %p3, %r3, 0;
  @%p3 bra $again;
  {barrier}
  ld.global.b32 %r4, [%d11];
$end:
"""


@pytest.mark.parametrize("seed", range(3))
def test_release_and_acquire_order_blocks(seed: int) -> None:
    arrays = [np.zeros(64, np.int32), np.zeros(1, np.int32)]
    options = {"threads": 64, "grid": (3,), "cooperative": True, "zeroed_outputs": (1,), "seed": seed}
    right = {"release": "release", "acquire": "acquire", "barrier": BARRIER}
    assert not problems(HANDED_ON.format(**right), [], arrays, **options)
    for fault in ({"release": "relaxed"}, {"acquire": "relaxed"}, {"barrier": ""}):
        assert "global race: read of what is not ordered" in problems(HANDED_ON.format(**right | fault), [], arrays, **options)


def test_blocks_that_wait_for_nothing_hang() -> None:
    never = HANDED_ON.format(release="release", acquire="acquire", barrier=BARRIER).replace("[%d1], 1;", "[%d1], 0;")
    arrays = [np.zeros(64, np.int32), np.zeros(1, np.int32)]
    with pytest.raises(errors.HangError, match="wait for what no one will do"):
        problems(never, [], arrays, threads=64, grid=(3,), cooperative=True, zeroed_outputs=(1,))


# Asynchronous copies


ASYNC = """
  add.s64 %d11, %d0, %d10; add.s64 %d12, %d1, %d10;
  cp.async.ca.shared.global [%r10], [%d11], 4; cp.async.commit_group;
  cp.async.ca.shared.global [%r10+128], [%d11], 4, 0; cp.async.commit_group;
  {wait} ld.shared.b32 %r1, [%r10]; st.global.b32 [%d12], %r1;
  cp.async.wait_group 0; ld.shared.b32 %r2, [%r10+128]; st.global.b32 [%d12+128], %r2;
"""


def test_a_copy_arrives_when_it_is_waited_for() -> None:
    (found,), report = ptx_texts.run(PLACES + ASYNC.format(wait="cp.async.wait_group 1;"), [floats(32)], [floats(64)])
    np.testing.assert_array_equal(found, [*floats(32), *np.zeros(32)])
    assert not report.problems
    for weak in ("", "cp.async.wait_group 2;"):
        (found,), report = ptx_texts.run(PLACES + ASYNC.format(wait=weak), [floats(32)], [floats(64)])
        assert "read of what is still on its way" in report.summary()
        assert np.isnan(found[:32]).all()
    never = "add.s64 %d11, %d0, %d10; cp.async.ca.shared.global [%r10], [%d11], 4; cp.async.commit_group;"
    assert "a copy that is never waited for" in problems(never, [floats(32)], [floats(32)])


def test_another_warps_copy_needs_a_barrier_behind_the_wait() -> None:
    body = """
      add.s64 %d11, %d0, %d10; cp.async.ca.shared.global [%r10], [%d11], 4; cp.async.commit_group; cp.async.wait_group 0; {}
      xor.b32 %r12, %r10, 128; ld.shared.b32 %r1, [%r12];
    """
    assert not problems(body.format(BARRIER), [floats(64)], [floats(64)], threads=64)
    assert "read of what is not ordered" in problems(body.format(""), [floats(64)], [floats(64)], threads=64)


# Threads that part


def test_threads_that_part_meet_again() -> None:
    """Each thread counts to its own number; the sum over the warp is taken together."""
    body = """
      mov.u32 %r1, 0;
    $again:
      setp.ge.u32 %p1, %r1, %r0;
      @%p1 bra $out;
      add.u32 %r1, %r1, 1;
      bra $again;
    $out:
      shfl.sync.bfly.b32 %r2, %r1, 16, 31, -1; add.s64 %d11, %d0, %d10; st.global.b32 [%d11], %r2;
    """
    (found,), _ = ptx_texts.run(PLACES + body.replace(".u32 %r1, %r1, 1", ".s32 %r1, %r1, 1"), [], [np.zeros(32, np.int32)])
    np.testing.assert_array_equal(found, np.arange(32) ^ 16)


def test_registers_of_inner_braces_are_their_own() -> None:
    body = """
      mov.u32 %r1, 1;
      { .reg .b32 t; mov.u32 t, 5; add.s32 %r1, %r1, t; }
      { .reg .b16 t; mov.b16 t, 7; cvt.u32.u16 %r2, t; add.s32 %r1, %r1, %r2; }
      add.s64 %d11, %d0, %d10; st.global.b32 [%d11], %r1;
    """
    (found,), _ = ptx_texts.run(PLACES + body, [], [np.zeros(32, np.int32)])
    assert (found == 13).all()


def test_bytes_that_nothing_has_written_may_be_moved_but_not_computed_with() -> None:
    """Compilers pack a value beside a register that they never write, and take the value out again."""
    store = "add.s64 %d11, %d0, %d10; st.global.b32 [%d11], %r3;"
    permuted = "prmt.b32 %r2, %r0, %r50, 0x7540; and.b32 %r3, %r2, 255;"
    joined = "mov.b64 %d20, {%r0, %r50}; cvt.u32.u64 %r3, %d20;"
    for pack in (permuted, joined):
        (found,), _ = ptx_texts.run(PLACES + pack + store, [], [np.zeros(32, np.int32)])
        np.testing.assert_array_equal(found, np.arange(32))
    with pytest.raises(errors.UndefinedRegisterError, match="nothing has written"):
        ptx_texts.run(PLACES + "xor.b32 %r3, %r0, %r50;" + store, [], [np.zeros(32, np.int32)])


@pytest.mark.parametrize("mode", ["bfly", "idx", "up", "down"])
@pytest.mark.parametrize("width", [32, 8])
def test_shuffles(mode: str, width: int) -> None:
    clamp = (32 - width) << 8 | (0 if mode == "up" else 31)
    body = f"""
      shfl.sync.{mode}.b32 %r1|%p1, %r0, 3, {clamp}, 0xffffffff; selp.b32 %r2, 1, 0, %p1;
      add.s64 %d11, %d0, %d10; st.global.b32 [%d11], %r1; st.global.b32 [%d11+256], %r2;
    """
    (found,), _ = ptx_texts.run(PLACES + body, [], [np.zeros(128, np.int32)], threads=64)
    lane = np.arange(64)
    first = lane // width * width
    source = {"bfly": lane ^ 3, "idx": first + 3, "up": lane - 3, "down": lane + 3}[mode]
    inside = (source >= first) & (source < first + width)
    np.testing.assert_array_equal(found[:64], np.where(inside, source, lane))
    np.testing.assert_array_equal(found[64:], inside)


@pytest.mark.parametrize(
    ("action", "reference"),
    [
        ("add.u32", np.add), ("min.s32", np.minimum), ("max.u32", np.maximum), ("and.b32", np.bitwise_and),
        ("or.b32", np.bitwise_or), ("xor.b32", np.bitwise_xor), ("max.f32", np.fmax), ("min.NaN.f32", np.minimum),
    ],
)  # fmt: skip
def test_reductions_over_a_warp(action: str, reference: np.ufunc) -> None:
    dtype = {"u": np.uint32, "s": np.int32, "b": np.uint32, "f": np.float32}[action.split(".")[-1][0]]
    given = np.random.default_rng(5).integers(0, 2**32, 64, np.uint32).view(dtype)
    if dtype == np.float32:
        given[7] = np.nan  # in the first warp alone
    body = PLACES + COPY.format("").replace("st.", f"redux.sync.{action} %r1, %r1, 0xffffffff; st.")
    (found,), _ = ptx_texts.run(body, [given], [given], threads=64)
    np.testing.assert_array_equal(found, np.repeat(reference.reduce(given.reshape(2, 32), 1, dtype), 32))


def test_addresses_alone_take_no_memory() -> None:
    """2 ** 33 bytes, of which a block touches 128: a 32-bit offset would be elsewhere."""
    body = """
      mov.u32 %r1, %ctaid.x; {} add.s64 %d12, %d11, %d10; add.s64 %d13, %d0, %d12; ld.global.b32 %r2, [%d13];
    """
    wide, narrow = "mul.wide.u32 %d11, %r1, 128;", "mul.lo.u32 %r3, %r1, 128; cvt.u64.u32 %d11, %r3;"
    given = np.broadcast_to(np.float32(0), (2**31,))
    last = 2**31 // 32 - 1
    for offset, at in ((wide, 2**33 - 128), (narrow, 2**32 - 128)):
        program = ptx_texts.kernel(PLACES + body.format(offset), pointers=1)
        _, report = ptx.execute(program, (last + 1,), [given], [], addresses=True, only=[last], shared_memory=64)
        assert report.touched["input 0", "read"] == (at, at + 128)
