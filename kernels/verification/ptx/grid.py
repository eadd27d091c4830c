"""A launch: its arrays, its blocks, and in which order they run.

Blocks without a barrier between them run one after another. With one they take turns, in an order drawn from a seed: at every
atomic and ordered load, at some of the other accesses to device memory and barriers. A block that polls in vain sleeps until an
atomic has changed something; when all sleep, the launch hangs.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kernels.verification.ptx.block import Block
from kernels.verification.ptx.bulk import TensorMap
from kernels.verification.ptx.clocks import INSTRUCTIONS, WARPS, Clocks
from kernels.verification.ptx.errors import HangError, NotCoveredError, Report
from kernels.verification.ptx.memory import APART, POISON, Array, Memory, Watch
from kernels.verification.ptx.program import Program
from kernels.verification.ptx.shadow import Shadow

SWITCH = 0.2  # how often another block runs after a barrier; after an access to device memory a quarter of it
POLLS = 3  # in vain, before a block sleeps
LIMIT = 5_000_000  # instructions of a block, where no other is given


class Grid:
    """One launch. `run` runs it once.

    Args:
      size: of the grid, blocks along x, y and z.
      arrays: all that is in device memory.
      parameters: the bytes of each parameter.
      shared_memory: bytes of it that a block is given at the launch.
      tracked: whether races and unwritten memory are looked for.
      limit: instructions after which a block that has not ended hangs.
      tensor_maps: the descriptors of tiles, by address.
      watch: told of every access to device and shared memory.
    """

    def __init__(
        self,
        program: Program,
        size: Sequence[int],
        arrays: Sequence[Array],
        parameters: Mapping[str, bytes],
        shared_memory: int,
        cooperative: bool,
        seed: int,
        tracked: bool,
        limit: int,
        tensor_maps: Mapping[int, TensorMap] | None = None,
        watch: Watch | None = None,
    ):
        self.tensor_maps = tensor_maps or {}
        self.program, self.parameters, self.shared_memory = program, parameters, shared_memory
        self.size = (*size, *(1,) * (3 - len(size)))
        self.memory = Memory("global", arrays, tracked, watch)
        self.cooperative, self.tracked, self.limit = cooperative, tracked, limit
        self.random = random.Random(seed)
        self.order = seed % 3
        self.switch = SWITCH if cooperative else 0.0
        self.report = Report()
        self.counts = [0] * len(program.steps)
        self.changes = 0  # by atomics

    def turn(self, share: float) -> bool:
        """Whether another block runs now."""
        return self.random.random() < self.switch * share

    def run(self, only: Sequence[int] | None = None) -> Report:
        """Runs all blocks, or those with these numbers (x fastest).

        Raises:
          ExecutionError: what a GPU answers with an error, a hang or garbage.
        """
        width, height, _ = self.size
        count = int(np.prod(self.size, dtype=np.int64))
        numbers = range(count) if only is None else only
        index = lambda n: (n % width, n // width % height, n // (width * height))
        warps = self.program.kernel.threads // 32
        if self.program.kernel.threads % 32 or len(self.program.steps) > INSTRUCTIONS:
            raise NotCoveredError(f"{self.program.kernel.threads} threads, {len(self.program.steps)} instructions")
        self.report.blocks = len(numbers)
        with np.errstate(all="ignore"):
            if self.cooperative or self.program.communicates:
                each = warps + self.program.agents
                if len(numbers) * each > WARPS:
                    raise NotCoveredError(f"{len(numbers)} blocks of {warps} warps that communicate")
                clocks = Clocks(len(numbers) * each)
                blocks = [Block(self, index(n), clocks, i * each) for i, n in enumerate(numbers)]
                self._run_together(blocks) if self.cooperative else self._run_in_order(blocks)
            else:
                base = 1
                for n in numbers:
                    clocks = Clocks(warps, base)
                    self._run_in_order([Block(self, index(n), clocks, 0)])
                    base = int(clocks.own.max()) + 1
        for step, times in zip(self.program.steps, self.counts, strict=True):
            if times:
                self.report.executed[step.it.opcode] += times
        for array in self.memory.arrays:
            self.report.touched |= {(array.name, how): extent for how, extent in array.touched.items()}
        return self.report

    def _run_in_order(self, blocks: Sequence[Block]) -> None:
        for block in blocks:
            for _ in block.run():
                pass

    def _run_together(self, blocks: Sequence[Block]) -> None:
        going = {i: block.run() for i, block in enumerate(blocks)}
        asleep: dict[int, tuple[int, int]] = {}  # block -> changes when it polled last, how often it has polled since
        last = self.random.choice(list(going))  # in one of the orders, it runs only where no other can
        while going:
            awake = [i for i in going if asleep.get(i, (-1, 0))[0] != self.changes or asleep[i][1] < POLLS]
            if not awake:
                raise HangError(f"blocks {[blocks[i].index for i in going]} wait for what no one will do")
            if self.order == 1 and len(awake) > 1 and last in awake:
                awake.remove(last)
            elif self.order == 2:
                awake = awake[:1] if self.random.random() < 0.9 else awake[-1:]
            i = self.random.choice(awake)
            said = next(going[i], None)
            if said is None:
                del going[i]
                asleep.pop(i, None)
                if i == last and going:
                    last = self.random.choice(list(going))
            elif said == "poll":
                changes, times = asleep.get(i, (-1, 0))
                asleep[i] = (self.changes, times + 1 if changes == self.changes else 1)


def arrays_of(
    program: Program,
    inputs: Sequence[Any],
    outputs: Sequence[tuple[tuple[int, ...], Any]],
    zeroed_outputs: Sequence[int],
    in_place: Sequence[tuple[int, int]],
    tracked: bool,
) -> tuple[list[Array], list[Array]]:
    """The arrays of a launch in device memory, and for each parameter the one that it points to."""
    same = dict(in_place)
    written = {*zeroed_outputs, *same.values()}
    grain = program.grain["global"]
    made, number = [], 0

    def new(name: str, nbytes: int, output: int | None) -> Array:
        nonlocal number
        number += 1
        shadow = Shadow("global", nbytes, grain, output in written) if tracked and output is not None else None
        array = Array(name, number * APART, nbytes, output is not None, shadow)
        made.append(array)
        return array

    results = []
    for o, (shape, dtype) in enumerate(outputs):
        array = new(f"output {o}", int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize, o)
        if o not in zeroed_outputs and tracked:
            array.content.fill(POISON)
        results.append(array)
    given = []
    for i, value in enumerate(inputs):
        array = results[same[i]] if i in same else new(f"input {i}", value.nbytes, None)
        if tracked or value.nbytes < 2**28:
            array.content[:] = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        given.append(array)
    return made, [*given, *results]
