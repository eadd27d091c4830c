"""The barrier of the persistent kernels: any order of the blocks gives the same, and a wrong barrier does not go unnoticed."""

import collections
import random
import threading
import time

import jax
import numpy as np
import pytest

from kernels.recurrent import persistent, triton
from kernels.runtime import launch
from kernels.verification import cooperative, interpret
from tests.kernels.recurrent_operands import exact_results, operands, results

STEPS = 4
SHAPES = {
    "one layer": {"hidden": 64, "layers": 1},  # four blocks
    "wavefront": {"hidden": 20, "layers": 3},  # two blocks for each of three layers
}
BLOCKS = {"one layer": 4, "wavefront": 6}


def count(arrived):
    """One more arrival, from Python."""
    import triton.language as tl

    tl.atomic_add(arrived, 1)


def poll(arrived, target):
    import triton.language as tl

    while tl.atomic_add(arrived, 0) < target:
        pass


class Schedule:
    """Stands in for `triton.arrive` and `triton.wait`: pauses of random length around both, and a count of the waits.

    `holds`: the first block to arrive is held there until another one has waited for every step. A barrier that works
    would keep that one from doing so; one that does not lets it read what the held block has yet to write, every time.
    """

    def __init__(self, arrivals=1, waits=True, holds=False):
        self.rng = random.Random(0)
        self.arrivals, self.waits = arrivals, waits
        self.waited = collections.Counter()  # by thread, which is by block and launch
        self.to_hold = threading.Semaphore(int(holds))
        self.let_through = threading.Event()

    def pause(self):
        time.sleep(self.rng.random() / 100)

    def arrive(self, arrived):
        if self.to_hold.acquire(blocking=False):
            deadline = time.monotonic() + 30
            while not self.let_through.wait(timeout=0.05) and not interpret._builder.abandoned.is_set():
                assert time.monotonic() < deadline, "no other block went ahead of the held one"
        self.pause()
        for _ in range(self.arrivals):
            count(arrived)
        self.pause()

    def wait(self, arrived, target):
        self.waited[threading.get_ident()] += 1
        if self.waits:
            poll(arrived, target)
        self.pause()
        if self.waited[threading.get_ident()] == STEPS:
            self.let_through.set()


@pytest.fixture
def run(monkeypatch):
    """run(shape, schedule): the largest error of outputs and gradients, and what the launches' counters read at the end."""

    def run(shape, schedule):
        given = operands("lstm", 2, STEPS, 5, **SHAPES[shape])
        counts = []

        def recorded(*args, **kwargs):
            outputs = launch.launch(*args, **kwargs)
            counts.append(outputs[-1])
            return outputs

        monkeypatch.setattr(persistent, "launch", recorded)
        monkeypatch.setattr(triton, "arrive", schedule.arrive)
        monkeypatch.setattr(triton, "wait", schedule.wait)
        monkeypatch.setattr(jax, "jit", lambda fn: fn)  # the counters are values, not tracers
        found = jax.tree.leaves(results("lstm", "interpret", *given))
        monkeypatch.undo()
        expected = jax.tree.leaves(exact_results("lstm", *given))
        error = max(np.nan_to_num(np.abs(a - b), nan=9.0).max() for a, b in zip(found, expected, strict=True))
        return float(error), [np.asarray(c).tolist() for c in counts]

    interpret._rewritten.cache_clear()  # it holds the kernels as they were with the barrier of before
    yield run
    interpret._rewritten.cache_clear()


@pytest.mark.parametrize("shape", SHAPES)
def test_any_order_of_the_blocks_gives_the_same(run, shape):
    schedule = Schedule()
    error, counts = run(shape, schedule)
    assert error < 1e-5
    # Every block waits once per step of the wavefront, in either direction.
    steps = STEPS + SHAPES[shape]["layers"] - 1
    assert sum(schedule.waited.values()) == BLOCKS[shape] * (steps + (steps + 1))
    # It has arrived once more forward: with its initial state before the first step and after each step.
    assert counts == [[[BLOCKS[shape] * (steps + 1)]], [[BLOCKS[shape] * steps]]]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_missing_barrier_is_caught(run, shape):
    with pytest.raises(Exception, match="load of what nobody has written"):
        run(shape, Schedule(waits=False, holds=True))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_doubled_arrival_is_caught(run, shape):
    with pytest.raises(Exception, match="load of what nobody has written"):
        run(shape, Schedule(arrivals=2, holds=True))


def test_a_missing_arrival_ends_in_an_error(run, monkeypatch):
    monkeypatch.setattr(cooperative, "TIMEOUT", 1)
    before = threading.active_count()
    with pytest.raises(Exception, match="its barrier never opened"):
        run("one layer", Schedule(arrivals=0))
    assert threading.active_count() <= before  # no block is left waiting
