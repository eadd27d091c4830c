"""The variants of the guide are right on any input, and what is counted of them is what a person would count."""

from __future__ import annotations

import re

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.guide import evidence, executed, session, topics, verdict
from experiments.guide.topic import Case, Counted, Variant
from experiments.measuring.clock import TOLERANCE
from kernels.runtime import dispatch, launch
from kernels.verification import aot, residency

H200 = "nvidia-h200"
CASES = {(name, case.name): case for name in topics.NAMES for case in topics.load(name).cases}
VARIANTS = {
    f"{name}-{case.name}-{variant.name}": (case, variant)
    for (name, _), case in CASES.items()
    for variant in case.variants
    if variant.call is not None
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_right(name: str, rng: np.random.Generator) -> None:
    """At sizes that are no multiple of a block. The tolerance is that of the comparison's operators."""
    case, variant = VARIANTS[name]
    largest = case.sizes["check"]
    size = tuple(int(rng.integers(max(1, n // 3), n + 1)) | 1 for n in largest)
    assert evidence.error(case, variant, size, int(rng.integers(1000))) <= TOLERANCE[case.dtype]


def test_a_wrong_variant_is_neither_counted_nor_timed() -> None:
    case = CASES["fusion", "operation by operation, XLA"]
    wrong = Variant("wrong", lambda x, w, b: jnp.zeros(x.shape[0]))
    right = case.variants[1]
    options = session.Options(H200, measured=False)
    broken = Case(
        **{f: getattr(case, f) for f in case.__dataclass_fields__} | {"variants": (wrong, right), "baseline": "wrong"}
    )
    row = session.run_case(broken, options)
    assert row is not None
    assert row["variants"]["wrong"]["failed"].startswith("ValueError: wrong")
    assert row["variants"]["wrong"]["compiled"] is row["variants"]["wrong"]["measured"] is None
    assert row["variants"]["fused"]["compiled"]["kernels"] == 1
    assert verdict.of(row) == {"compiled": None, "measured": None}


def counted(topic: str, case: str, variant: str) -> dict[str, float]:
    found = CASES[topic, case]
    return dict(evidence.counted(found, next(v for v in found.variants if v.name == variant), H200))


def test_neighbours_are_loaded_in_vectors_and_strides_are_not() -> None:
    records = counted("coalescing", "one field of sixteen", "records, x[i, f]")
    planes = counted("coalescing", "one field of sixteen", "planes, x[f, i]")
    assert (records["load_bytes"], planes["load_bytes"]) == (4, 16)
    # A request for 32 floats 64 bytes apart touches 32 sectors; for 128 neighbours 16. Either stores 512 bytes, 16 sectors.
    assert planes["sectors_per_request"] == 16
    assert records["sectors_per_request"] == pytest.approx((32 * 32 + 8 * 16) / 40)
    assert planes["sector_bytes_per_byte"] == 1
    assert records["sector_bytes_per_byte"] == pytest.approx((32 * 32 * 32 + 4096) / 8192)


def test_a_tile_is_transposed_through_shared_memory() -> None:
    tile, strip = (counted("coalescing", "transposing", f"tiles {shape}") for shape in ("32 x 32", "1 x 1024"))
    assert (tile["load_bytes"], tile["store_bytes"], strip["load_bytes"], strip["store_bytes"]) == (16, 16, 16, 4)
    assert tile["sector_bytes_per_byte"] == 1 < strip["sector_bytes_per_byte"]
    assert tile["shared_bytes"] == 32 * 32 * 4


def test_widths_are_read_off_every_form_of_a_load() -> None:
    ptx = """
    @%p1 ld.global.v4.b32 { %r1, %r2, %r3, %r4 }, [ %rd1 + 0 ];
    ld.global.L1::evict_last.b16 { %rs1 }, [ %rd2 + 0 ];
    @%p1 st.global.v2.b64 [ %rd3 + 0 ], { %rd5, %rd6 };
    cp.async.cg.shared.global [ %r9 + 0 ], [ %rd4 + 0 ], 0x10, %r10;
    """
    assert executed.instruction_widths(ptx, "load") == [16, 2, 16]
    assert executed.instruction_widths(ptx, "store") == [16]


@pytest.mark.parametrize(
    ("registers", "warps", "shared", "blocks"),
    [
        (32, 4, 0, 16),  # 2,048 threads
        (255, 8, 0, 1),  # 65,536 / (8 warps x 8,192 registers)
        (64, 8, 0, 4),  # 65,536 / (8 x 2,048)
        (32, 1, 0, 32),  # as many blocks as there are places
        (32, 4, 100_000, 2),  # (228 KB) / (100,000 + 1 KB)
    ],
)
def test_resident_blocks_counted_by_hand(registers: int, warps: int, shared: int, blocks: int) -> None:
    found = aot.Resources(registers, 0, shared, frozenset(), "")
    assert residency.blocks_per_core(found, warps, dispatch.H200) == blocks


def test_compiled_figures_say_what_the_topics_teach() -> None:
    apart = counted("occupancy", "loads of one thread", "1 a thread")
    many = counted("occupancy", "loads of one thread", "16 a thread")
    assert apart["occupancy"] == many["occupancy"] == 1
    assert apart["bytes_in_flight"] == 2048 * 4
    assert many["bytes_in_flight"] == 2048 * 64
    assert apart["read_share"] == pytest.approx(2048 * 4 / 26_600)
    assert many["read_share"] == 1
    two, eight = (counted("occupancy", "too few warps for a row of 16,384", f"{n} warps") for n in (2, 8))
    assert eight["spilled_bytes"] == 0 < two["spilled_bytes"]
    one, three = (counted("asynchronous_execution", "stages of a product", f"{n} stage{'s' * (n > 1)}") for n in (1, 3))
    assert one["asynchronous_copies"] == one["bytes_ahead"] == 0 < three["asynchronous_copies"]
    assert three["shared_bytes"] == 3 * 2 * 64 * (128 + 128)
    select, branch = (
        counted("divergence", "two sides, grouped data", way) for way in ("both sides, tl.where", "a branch for each block")
    )
    assert select["branches"] == 0 < branch["branches"]
    assert select["special"] == branch["special"] == 16 * 8  # eight elements a thread, sixteen exponentials each
    loop, written = (counted("unrolling", "256 steps that need each other", how) for how in ("run time", "written out"))
    assert written["branches"] == 0 < loop["branches"]
    assert written["special"] == 256 * 4
    several, one = (counted("fusion", "a chain and its sum, by hand", f"{n}") for n in ("three kernels", "one kernel"))
    assert (several["kernels"], one["kernels"]) == (3, 1)
    fits, large = (counted("memory_hierarchy", name, "all rows, then all again") for name in (
        "an array that fits the cache", "slices that fit the cache"))  # fmt: skip
    assert large["device_bytes"] == 3 * 4 * 128 * 2**18
    assert fits["device_bytes"] == 2 * 4 * 128 * 2**15
    for found in (apart, many, eight, one, three, select, branch, loop, written, several, fits, large):
        assert found["spilled_bytes"] == 0


def test_bytes_asked_for_are_those_that_the_blocks_load() -> None:
    """Counted in the interpreter, where every access is seen."""
    from experiments.guide import product
    from kernels.verification import interpret

    m, k, n = 64, 32, 96
    case = CASES["memory_hierarchy", "tiles of a product"]
    a, b = case.draw(np.random.default_rng(0), m, k, n)
    with interpret.recording() as seen:
        np.asarray(product.product(a, b, implementation="interpret", high=32, wide=16)[0])
    loaded = sum(int(access.mask.sum()) * access.size for access in seen if access.what == "load")
    assert loaded == product.asked_bytes(m, k, n, 32, 16)


def test_machine_code_has_no_padding_and_its_loads_are_counted() -> None:
    call = launch.Launch(
        topics.load("occupancy").cases[0].variants[0].call.func.__globals__["scale_kernel"],
        (np.dtype(np.float32), np.dtype(np.float32)),
        (8,),
        4,
        1,
        (("BLOCK", 128), ("SIZE", 1000)),
    )
    code = evidence.machine_code(aot.kernel_resources(call, H200).ptx)
    assert "NOP" not in code
    assert sum(bool(re.match("LDG", opcode)) for opcode in code) == 1
    assert evidence.loads_in_a_row(["LDG.E", "IADD3", "LDG.E.128", "FADD", "LDGSTS.E", "HMMA", "LDG.E"]) == 2


def test_steps_of_blocks_counted_by_hand() -> None:
    from experiments.guide import divergence

    case = CASES["divergence", "a loop until the last one is done"]
    counts = np.array([3, 1, 1, 1, 2], np.int32)
    fixed = Case(
        **{f: getattr(case, f) for f in case.__dataclass_fields__}
        | {"draw": lambda rng, n: [counts, counts, np.argsort(counts, kind="stable")]}
    )
    figure = lambda block, by_count: divergence.settle_figures(Counted(fixed, "", (5,)), block, by_count)[
        "steps_per_step_needed"
    ]
    assert figure(2, False) == (3 + 1 + 2) * 2 / 8
    assert figure(2, True) == (1 + 2 + 3) * 2 / 8
    assert figure(1, False) == 1
