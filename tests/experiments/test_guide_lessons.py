"""The lessons of the guide: what they count is what a person would count."""

from __future__ import annotations

import pathlib

import jax
import numpy as np
import pytest

from experiments import report
from experiments.guide import (
    bank_conflicts,
    by_hand,
    divergence,
    evidence,
    executed,
    launches,
    memory_use,
    pictures,
    precision,
    registers,
    topics,
    tutorial,
)
from experiments.guide.topic import Case, Counted
from experiments.measuring.result import load
from kernels.runtime import launch
from kernels.verification import aot, ptx
from kernels.verification.ptx.errors import ExecutionError

H200 = "nvidia-h200"
LESSONS = [name for name in topics.NAMES if topics.load(name).answer is not None]


def case_of(topic: str, name: str) -> Case:
    (found,) = (case for case in topics.load(topic).cases if case.name == name)
    return found


def done(topic: str, name: str) -> dict[str, dict[str, float]]:
    """What the first block of each variant does."""
    case = case_of(topic, name)
    return {variant.name: dict(executed.figures(Counted(case, variant.name, ()))) for variant in case.variants}


def test_a_block_agrees_before_it_asks_for_an_atomic() -> None:
    found = done("threads", "a sum: the block agrees first")
    # 1,024 elements: every warp of 32 threads asks for an atomic per element, or one thread of the block once.
    assert (found["an atomic per element"]["atomics"], found["an atomic per block"]["atomics"]) == (1024 / 32, 1)
    waits = done("threads", "a barrier that nobody needs")
    assert (waits["no barrier"]["barriers"], waits["a barrier"]["barriers"]) == (0, 1)


@pytest.mark.parametrize("layout", bank_conflicts.LAYOUTS)
@pytest.mark.parametrize("transposed", [True, False])
def test_a_tile_through_shared_memory(layout: str, transposed: bool, rng: np.random.Generator) -> None:
    x = rng.standard_normal((32, 32), np.float32)
    y, counter, _ = by_hand.run(bank_conflicts.text_of(layout, transposed), x, shared=4 * 33 * 32)
    assert np.array_equal(y, x.T if transposed else x)
    read, written = (counter.counts["shared", how] for how in ("read", "write"))
    assert (read.requests, written.requests, written.parts) == (32, 32, 32)
    assert read.parts == (32 * 32 if transposed and layout == "rows of 32 words" else 32)
    if transposed:  # what the picture shows is what was executed
        banks = np.bincount([bank_conflicts.bank_of(layout, row, 5) for row in range(32)], minlength=32)
        assert read.parts == 32 * banks.max()


def test_a_tile_without_its_barrier_is_refused() -> None:
    text = bank_conflicts.text_of("rows of 33 words", True).replace("bar.sync 0;", "").replace(".reqntid 32", ".reqntid 64")
    with pytest.raises(ExecutionError):
        by_hand.run(text, np.ones((32, 32), np.float32), shared=4 * 33 * 32)


@pytest.mark.parametrize("how", divergence.HOWS)
def test_instructions_of_two_sides(how: str, rng: np.random.Generator) -> None:
    """A warp with both kinds of threads executes both sides; one that agrees executes its own, unless all are predicated."""
    length = int(rng.integers(3, 20))
    agree = rng.random(32).astype(np.float32) + 0.5
    mixed = agree * np.where(rng.permutation(32) % 2, 1, -1).astype(np.float32)
    executed = {}
    for name, x in (("agree", agree), ("mixed", mixed)):
        y, _, report_ = by_hand.run(divergence.two_sides(length, how), x)
        np.testing.assert_allclose(y, x + np.where(x > 0, length, -length), rtol=1e-5)  # so many roundings in float32
        executed[name] = report_.instructions
    assert executed["mixed"] - executed["agree"] == (length if how == "branch" else 0)


def test_the_assembler_predicates_short_sides_by_itself() -> None:
    """As the lesson says: no branch is left of a short one, and a long one stays."""
    branches = {n: evidence.machine_code(divergence.two_sides(n, "branch")).count("BRA") - 1 for n in (1, 16)}
    assert branches[1] == 0 < branches[16]


def test_caps_on_registers() -> None:
    case, caps = case_of("registers", "a cap that spills"), (80, 64, 48, 40, 32)
    with launch.recording() as calls, aot.lowering_for(H200):
        assert case.variants[0].call is not None
        jax.eval_shape(lambda x: case.variants[0].call(x, implementation="triton"), *case.shapes(case.sizes["compile"]))
    text = aot.kernel_resources(calls[0], H200).ptx
    found = [registers.assembled(text, cap) for cap in (registers.NATURAL, *caps[1:])]
    assert all(used <= cap for (used, _), cap in zip(found, caps, strict=True))
    spilled = [bytes_ for _, bytes_ in found]
    assert spilled[0] == 0 < spilled[1]
    assert spilled == sorted(spilled)


@pytest.mark.parametrize("name", LESSONS)
def test_exercises_have_answers_that_run_and_stand_on_the_page(name: str) -> None:
    topic = topics.load(name)
    assert topic.exercise.endswith("?")
    assert topic.answer is not None
    said = topic.answer()
    assert said in (report.ROOT / "docs" / "guide.md").read_text()


@pytest.mark.parametrize("name", [name for name in topics.NAMES if topics.load(name).picture is not None])
def test_pictures_are_drawn_from_what_was_counted(name: str, tmp_path: pathlib.Path) -> None:
    rows = {row["topic"]: row for row in load("guide", H200)["topics"]}
    pictures.draw_topic(topics.load(name), rows[name], tmp_path / "drawn.png")
    assert (tmp_path / "drawn.png").stat().st_size > 5_000


def test_only_the_blocks_that_are_watched_run() -> None:
    from experiments.guide import occupancy

    x = np.ones(1000, np.float32)
    with ptx.watching(only=(1,)) as seen:
        y = np.asarray(occupancy.scale(x, implementation="ptx", block=128)[0])
    (one,) = seen
    assert one.counter.counts["global", "read"].bytes == one.counter.counts["global", "write"].bytes == 4 * 128
    assert (y[128:256] == 3).all()
    assert one.report.blocks == 1


def test_the_map_of_a_tutorial_names_cases_that_exist() -> None:
    cases = {(name, case.name) for name in topics.NAMES for case in topics.load(name).cases}
    for section, topic, case in tutorial.SECTIONS:
        assert not case or (topic, case) in cases, section
    assert {topic for _, topic, _ in tutorial.SECTIONS} == set(topics.NAMES)


def test_what_the_host_calls_is_counted_in_the_list_of_thunks() -> None:
    listed = """
000: kCommandBuffer [source | sink]
    001: kCustomKernel [source       | next=002 (1)] a
    002: kCustomKernel [prev=001 (1) | next=003 (1)] b
    003: kCustomKernel [source       | sink        ] c
004: kCopy [source | sink] kCopy
"""
    assert launches.host_calls(listed) == (2, 3)
    assert launches.in_a_row(listed) == 2


def test_donation_saves_what_a_result_can_take(rng: np.random.Generator) -> None:
    size = int(rng.integers(1000, 5000)) * 256  # XLA rounds places up to 256 bytes
    spec = jax.ShapeDtypeStruct((size,), np.float32)
    kept, donated = (memory_use.held(H200, memory_use.update, (spec, spec), d) for d in ((), (0,)))
    assert (kept, donated) == (3 * 4 * size, 2 * 4 * size)


@pytest.mark.parametrize(("name", "bits"), precision.BITS.items())
def test_rounding_keeps_so_many_bits(name: str, bits: int, rng: np.random.Generator) -> None:
    """Beside a rounding of the significand by NumPy, half to even."""
    x = rng.standard_normal(1000).astype(np.float32)
    significand, exponent = np.frexp(x)
    expected = np.ldexp(np.rint(significand * 2.0 ** (bits + 1)) / 2.0 ** (bits + 1), exponent)
    assert np.array_equal(np.asarray(precision.rounded(x, bits)), expected.astype(np.float32))


def test_coefficients_become_operands() -> None:
    """A load each from device memory, none from constant memory or in the instructions; one load is of x."""
    cases = topics.load("constant_memory").cases[:2]
    found = {v.name: v.figures(Counted(case, v.name, ())) for case in cases for v in case.variants}
    assert [f["loads"] for f in found.values()] == [9, 1, 1]
    operands = [f["constant_operands"] for f in found.values()]
    assert operands[0] == operands[2] == 0 < operands[1] <= 8  # the assembler may read two at once
