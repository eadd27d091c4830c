"""Instructions of a block of 256 threads that the executor of PTX runs a second: python -m experiments.benchmarks.ptx_speed.

Batch norm without a tensor core and with a barrier across the grid, and a matrix product, each forward and in bfloat16, of
blocks of 256 threads; with all that is looked for (bounds, races, unwritten memory). The fastest of several runs counts; what
it takes to read the text stands apart. Writes experiments/results/cpu/ptx-speed.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import Any

from experiments.execution import programs, running
from experiments.execution.case import Case
from experiments.measuring import result
from kernels.batch_norm_act import config as norm
from kernels.commands.cases import batch_norm_act, linear_act
from kernels.linear_act import config as linear
from kernels.verification import aot, ptx

DTYPE, RUNS, THREADS = "bfloat16", 7, 256
CASES = (
    (batch_norm_act((1000, 64)), norm.Config(32, 128, 8, 0)),
    (linear_act(256, 256, 256, "relu"), linear.Config(128, 128, 32, 8, 3)),
)


def measure(case: Case, architecture: str, runs: int) -> dict[str, Any]:
    """Of the first launch of a case, which is the forward one."""
    with running.executing(case, DTYPE, architecture) as executed:
        programs.results(case, case.draw(DTYPE))
    ready, here = executed.ready[0], executed.here
    compiled = aot.compiled(ready.call, here.compute_capability)
    seconds: dict[str, list[float]] = {"read": [], "run": []}
    for _ in range(runs):
        begun = time.perf_counter()
        program = ptx.Program(compiled.ptx)
        seconds["read"].append(time.perf_counter() - begun)
        begun = time.perf_counter()
        _, report = ready.execute(program, compiled.shared_memory)
        seconds["run"].append(time.perf_counter() - begun)
    if program.kernel.threads != THREADS or report.problems:
        raise RuntimeError(f"{case.name}: {program.kernel.threads} threads, {report.summary() or 'no problem'}")
    best = min(seconds["run"])
    return {
        "kernel": ready.call.kernel.fn.__name__,
        "blocks": report.blocks,
        "instructions": report.instructions,
        "seconds": best,
        "slowest_seconds": max(seconds["run"]),
        "read_seconds": min(seconds["read"]),
        "instructions_per_second": report.instructions / best,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--arch", nargs="+", default=["sm_80", "sm_90"])
    options = parser.parse_args(arguments)
    found: dict[str, Any] = {}
    for what, config in CASES:
        for architecture in options.arch:
            candidate = (what.operator, dataclasses.asdict(config))
            figures = measure(Case("usual", what, candidate=candidate, dtypes=(DTYPE,)), architecture, options.runs)
            found[f"{what.operator} {what.name}, {architecture}"] = figures
            print(f"{what.operator}, {architecture}: {figures['instructions_per_second']:,.0f} instructions a second")
    print(result.save("ptx-speed", {"threads": THREADS, "dtype": DTYPE, "runs": options.runs, "kernels": found}))


if __name__ == "__main__":
    main()
