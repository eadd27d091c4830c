"""The clock: contenders checked, then timed in turn, on inputs that the cache cannot hold."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from kernels.runtime import devices
from kernels.runtime.dispatch import ImplementationError

# Largest relative difference from the reference, |out - ref| / |ref| of the worst output, that counts as right.
# float32 sums of thousands of products agree to 1e-5; tf32 products, which GPUs take for float32, to about 1e-3; bfloat16
# carries 8 bits, so a result of several roundings agrees to about 1e-2.
TOLERANCE = {"float32": 2e-3, "bfloat16": 3e-2, "float16": 5e-3}
# Whole networks: a rounding in each of up to a hundred layers in turn, on random weights that do not dampen it.
MODEL_TOLERANCE = {"float32": 1e-2, "bfloat16": 1e-1, "float16": 2e-2}
CPU_CACHE = 64 * 2**20  # bytes, that inputs in turn outgrow; on a GPU twice its L2 cache
SETS = 8  # of inputs, at most


@dataclasses.dataclass
class Contender:
    """What does the work of a case.

    Attributes:
      call: inputs to outputs, returning before the work is done where the device allows.
      wait: blocks until `call`'s outputs are there.
      prepare: NumPy inputs to what `call` takes, on the device.
      to_numpy: outputs as a list of NumPy arrays in the reference's order and layout.
      profiled: JAX's profiler can say how long its kernels take on a GPU.
    """

    call: Callable[..., Any]
    wait: Callable[[Any], Any] = jax.block_until_ready
    prepare: Callable[[list[np.ndarray]], list[Any]] = lambda inputs: [jax.device_put(x) for x in inputs]
    to_numpy: Callable[[Any], list[np.ndarray]] = lambda out: [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(out)]
    profiled: bool = True


def protocol(what: str, rounds: int, block_seconds: float) -> str:
    """How `measure` times, in a sentence."""
    return (
        f"Blocks of about {block_seconds} s of calls, {what} in turn, {rounds} rounds; random inputs rotated beyond the cache; "
        "each result checked before the clock starts"
    )


class OutOfTimeError(Exception):
    """The deadline passed before every contender was ready."""


def seconds(call: Callable[[], Any]) -> float:
    """The seconds of a call, with all the work that it has started."""
    begun = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - begun


def best_seconds(call: Callable[[], Any], calls: int = 8) -> float:
    """The fastest of several calls, after one that is not timed."""
    seconds(call)
    return min(seconds(call) for _ in range(calls))


def spread(times: Sequence[float]) -> dict[str, float]:
    """Median, 20th and 80th percentile."""
    return dict(zip(("median", "p20", "p80"), map(float, np.percentile(times, (50, 20, 80))), strict=True))


def in_turn(blocks: Mapping[str, Callable[[int], float]], rounds: int) -> dict[str, dict[str, float]]:
    """The spread of each block's seconds, A B A B ..., so that a drifting machine is the same for all.

    Args:
      blocks: by name; each is given the number of the round and returns its seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in blocks}
    for number in range(rounds):
        for name, block in blocks.items():
            times[name].append(block(number))
    return {name: spread(values) for name, values in times.items()}


def interleaved(calls: Mapping[str, Callable[[], Any]], rounds: int = 15, warmup: int = 2) -> dict[str, dict[str, float]]:
    """The spread of the seconds of a call, the calls in turn. Each returns when its work is done, or what to wait for."""
    for call in calls.values():
        for _ in range(warmup):
            jax.block_until_ready(call())
    return in_turn({name: lambda _, call=call: seconds(call) for name, call in calls.items()}, rounds)  # type: ignore[misc]


def beside_torch(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> dict[str, Any]:
    """The spread of the seconds of a call here and in torch, in turn, and the ratio of the medians; below 1 ours is faster."""
    seconds = interleaved({"zoo": ours, "torch": theirs}, rounds)
    return {"seconds": seconds, "ratio": round(seconds["zoo"]["median"] / seconds["torch"]["median"], 3)}


@dataclasses.dataclass
class _Ready:
    """A contender that was correct, with the inputs that it takes in turn and the number of calls in a block."""

    contender: Contender
    inputs: list[list[Any]]
    calls: int = 1

    def seconds_per_call(self, calls: int, start: int) -> float:
        outputs = None
        begun = time.perf_counter()
        for number in range(start, start + calls):
            outputs = self.contender.call(*self.inputs[number % len(self.inputs)])
        self.contender.wait(outputs)
        return (time.perf_counter() - begun) / calls

    def warm_up(self, block_seconds: float) -> None:
        """Determine how many calls make a block, and run half of one."""
        once = self.seconds_per_call(1, 1)
        self.calls = max(1, min(1000, round(block_seconds / max(once, 1e-7))))
        if self.calls > 1:
            self.seconds_per_call(self.calls // 2, 0)

    def block(self, start: int) -> float:
        """Seconds per call of a block, after a call that is not timed where the block has many: the threads of the contender
        before may still be spinning."""
        if self.calls > 1:
            self.seconds_per_call(1, start)
        return self.seconds_per_call(self.calls, start + 1)


def relative_error(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """|found - expected| / |expected| of the array where it is largest, so that a small output counts as much as a large one;
    infinite for other shapes, NaN or infinities."""
    if [a.shape for a in found] != [b.shape for b in expected]:
        return float("inf")
    errors = [float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(b)), 1e-30) for a, b in zip(found, expected, strict=True)]
    return max(errors, default=0.0) if np.all(np.isfinite(errors)) else float("inf")


def refusal(name: str, problem: Exception) -> str:
    """Why a contender has no time, in one line; for an implementation that rejects the arguments, its own reason."""
    text = (str(problem).splitlines() or [""])[0]
    if isinstance(problem, ImplementationError):
        own = re.search(rf"\b{re.escape(name)}: (.*?)(?:; \w+: |\)?$)", text)
        return f"cannot run: {own[1] if own else text}"
    return f"{type(problem).__name__}: {text[:160]}"


def _sets(draw: Callable[[np.random.Generator], list[np.ndarray]], platform: str, seed: int) -> list[list[np.ndarray]]:
    """Different inputs, enough of them to exceed the cache."""
    first = draw(np.random.default_rng(seed))
    outgrown = CPU_CACHE if platform == "cpu" else 2 * devices.device().l2_cache
    count = min(SETS, 1 + outgrown // max(sum(x.nbytes for x in first), 1))
    return [first, *(draw(np.random.default_rng(seed + i)) for i in range(1, count))]


def measure(
    contenders: Mapping[str, Callable[[], Contender]],
    draw: Callable[[np.random.Generator], list[np.ndarray]],
    reference: list[np.ndarray],
    tolerance: float,
    *,
    platform: str,
    rounds: int,
    block_seconds: float,
    seed: int = 0,
    deadline: float = float("inf"),
) -> dict[str, dict[str, Any]]:
    """Check each contender against `reference` (its outputs on the inputs of `seed`), then time the right ones in turn.

    Inputs rotate through as many sets as outgrow the cache (eight at most). A block is as many calls as take about
    `block_seconds`; blocks of the contenders alternate for `rounds` rounds.

    Args:
      contenders: each made when its turn to be checked comes.
      tolerance: largest `relative_error` that counts as right.
      deadline: on time.monotonic; after it no further contender is made.

    Returns:
      For each contender: error, and median, p20, p80 seconds per call, calls in a block, and the sum of its kernels' own times
      (None but on a GPU); or failed, with the reason, and no time.

    Raises:
      OutOfTimeError: the deadline passed before every contender was checked.
    """
    sets = _sets(draw, platform, seed)
    found: dict[str, dict[str, Any]] = {}
    ready: dict[str, _Ready] = {}
    for name, make in contenders.items():
        if time.monotonic() > deadline:
            raise OutOfTimeError(f"{len(found)} of {len(contenders)} contenders were ready")
        try:
            contender = make()
            one = _Ready(contender, [contender.prepare(inputs) for inputs in sets])
            outputs = contender.call(*one.inputs[0])
            contender.wait(outputs)
            error = relative_error(contender.to_numpy(outputs), reference)
            if error <= tolerance:
                one.warm_up(block_seconds)
        except Exception as problem:  # one that cannot run here is a row of the table, not the end of the run
            found[name] = {"failed": refusal(name, problem)}
            continue
        if error <= tolerance:
            found[name], ready[name] = {"error": error}, one
        else:
            found[name] = {"failed": f"wrong: relative error {error:.2g}, allowed {tolerance:g}"}
    for name, figures in in_turn({name: one.block for name, one in ready.items()}, rounds).items():
        one = ready[name]
        profiled = platform == "cuda" and one.contender.profiled
        found[name] |= figures | {"calls": one.calls}
        found[name]["kernel_seconds"] = kernel_seconds(one.contender.call, one.inputs) if profiled else None
    return found


def kernel_seconds(call: Callable[..., Any], sets: list[list[Any]]) -> float | None:
    """Sum of the kernels' own times in one call on a GPU, through CUPTI: the median over three calls on the inputs in turn.

    None where that is not to be had, whatever the profiler raises: it is an experimental part of JAX, and renamed or broken it
    must not cost the comparison, whose contenders have run by now.
    """
    try:
        from jax.experimental.mosaic.gpu import profiler

        found = [profiler.measure(call)(*sets[number % len(sets)])[1] for number in range(3)]
        return None if None in found else float(np.median(found)) / 1e3  # type: ignore[arg-type]
    except Exception:
        return None
