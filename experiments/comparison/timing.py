"""The clock: contenders checked, then timed in turn, on inputs that the cache cannot hold."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

# Largest relative difference from the reference, |out - ref| / |ref| over all outputs together, that counts as right.
# float32 sums of thousands of products agree to 1e-5; tf32 products, which GPUs take for float32, to about 1e-3; bfloat16
# carries 8 bits, so a result of several roundings agrees to about 1e-2.
TOLERANCE = {"float32": 2e-3, "bfloat16": 3e-2, "float16": 5e-3}
CACHE = {"cpu": 64 * 2**20, "cuda": 120 * 2**20}  # bytes; twice the L2 of an H200


@dataclasses.dataclass
class Contender:
    """One way to do the work.

    Attributes:
      call: inputs to outputs, returning before the work is done where the device allows.
      wait: blocks until `call`'s outputs are there.
      prepare: NumPy inputs to what `call` takes, on the device.
      to_numpy: outputs as a list of NumPy arrays in the reference's order and layout.
    """

    call: Callable[..., Any]
    wait: Callable[[Any], Any] = jax.block_until_ready
    prepare: Callable[[list[np.ndarray]], list[Any]] = lambda inputs: [jax.device_put(x) for x in inputs]
    to_numpy: Callable[[Any], list[np.ndarray]] = lambda out: [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(out)]


def relative_error(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """|found - expected| / |expected| over all arrays; infinite for other shapes, NaN or infinities."""
    if [a.shape for a in found] != [b.shape for b in expected]:
        return float("inf")
    difference = sum(float(np.square(a - b).sum()) for a, b in zip(found, expected, strict=True))
    size = sum(float(np.square(b).sum()) for b in expected)
    error = (difference / max(size, 1e-30)) ** 0.5
    return error if np.isfinite(error) else float("inf")


def _seconds_per_call(contender: Contender, inputs: list[list[Any]], calls: int, start: int) -> float:
    outputs = None
    begun = time.perf_counter()
    for number in range(start, start + calls):
        outputs = contender.call(*inputs[number % len(inputs)])
    contender.wait(outputs)
    return (time.perf_counter() - begun) / calls


def measure(
    contenders: dict[str, Contender],
    make_inputs: Callable[[np.random.Generator], list[np.ndarray]],
    reference: list[np.ndarray],
    dtype: str,
    *,
    platform: str,
    rounds: int,
    block_seconds: float,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Check each contender against `reference` (its outputs on the inputs of `seed`), then time the right ones in turn.

    Inputs rotate through as many sets as outgrow the cache (eight at most). A block is as many calls as take about
    `block_seconds`; blocks of the contenders alternate for `rounds` rounds.

    Returns:
      For each contender: error, and median, p20, p80 seconds per call; or failed, with the reason, and no time.
    """
    first = make_inputs(np.random.default_rng(seed))
    size = sum(x.nbytes for x in first)
    sets = [
        first,
        *(make_inputs(np.random.default_rng(seed + i)) for i in range(1, min(8, 1 + CACHE[platform] // max(size, 1)))),
    ]
    found: dict[str, dict[str, Any]] = {}
    ready: dict[str, tuple[Contender, list[list[Any]], int]] = {}
    for name, contender in contenders.items():
        try:
            inputs = [contender.prepare(one) for one in sets]
            outputs = contender.call(*inputs[0])
            contender.wait(outputs)
            error = relative_error(contender.to_numpy(outputs), reference)
        except Exception as problem:  # a peer that cannot run here is a row of the table, not the end of the run
            found[name] = {"failed": f"{type(problem).__name__}: {str(problem).splitlines()[0][:160]}"}
            continue
        if not error <= TOLERANCE[dtype]:
            found[name] = {"failed": f"wrong: relative error {error:.2g}, allowed {TOLERANCE[dtype]:g}", "error": error}
            continue
        one = _seconds_per_call(contender, inputs, 1, 1)
        ready[name] = (contender, inputs, max(1, min(1000, round(block_seconds / max(one, 1e-7)))))
        _seconds_per_call(contender, inputs, max(2, ready[name][2] // 2), 0)
        found[name] = {"error": error}
    times: dict[str, list[float]] = {name: [] for name in ready}
    for number in range(rounds):
        for name, (contender, inputs, calls) in ready.items():
            times[name].append(_seconds_per_call(contender, inputs, calls, number))
    for name, values in times.items():
        median, p20, p80 = (float(q) for q in np.percentile(values, (50, 20, 80)))
        found[name] |= {"median": median, "p20": p20, "p80": p80, "calls": ready[name][2]}
    return found


def kernel_seconds(contender: Contender, inputs: list[np.ndarray]) -> float | None:
    """Sum of the kernels' own times of one call on a GPU, through CUPTI; None where that is not to be had."""
    try:
        from jax.experimental.mosaic.gpu import profiler

        prepared = contender.prepare(inputs)
        _, milliseconds = profiler.measure(contender.call)(*prepared)
        return None if milliseconds is None else float(milliseconds) / 1e3
    except (ImportError, RuntimeError, ValueError, TypeError):
        return None
