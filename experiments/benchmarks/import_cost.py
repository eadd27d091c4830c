"""What `import kernels` and `import zoo` cost beyond jax and flax: python -m experiments.benchmarks.import_cost [--out DIR].

Measured in new processes: `import zoo`, which imports the registry alone; that and the family of one model; that and everything
which is imported when it is asked for. Aims: 50 ms for kernels; for zoo and a family a third less than for everything. Writes
experiments/results/cpu/import-cost.json.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from experiments.errors import run
from experiments.flags import Parser, output, whole
from experiments.measuring import clock, result

# Seconds since the first statement, after each.
PROGRAM = """
import time
import {before}
begun = time.perf_counter()
for statement in {statements}:
    exec(statement)
    print(time.perf_counter() - begun)
"""
JAX, FLAX = "jax, jax.numpy", "jax, jax.numpy, flax.nnx"
# What is imported before the clock starts, and what then in the same process.
PROCESSES = {
    JAX: {"kernels": "import kernels"},
    FLAX: {"zoo": "import zoo", "zoo, LeNet-5": "zoo.LeNet5", "zoo, everything": "from zoo import *"},
}


def seconds(before: str) -> dict[str, float]:
    """By what was imported until then, in a new process that had imported `before`."""
    statements = PROCESSES[before]
    command = [sys.executable, "-c", PROGRAM.format(before=before, statements=list(statements.values()))]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(zip(statements, map(float, found.split()), strict=True))


def main(arguments: Sequence[str]) -> int:
    parser = Parser("experiments.benchmarks.import_cost", __doc__, "--rounds 3 --out runs")
    parser.add_argument("--rounds", type=whole(1, 1000), default=15, help="new processes of each kind (15)")
    parser.add_argument("--out", type=output, help="another folder for the result file")
    given = parser.parse_args(arguments)
    if given.out:
        result.RESULTS = given.out
    rounds = [seconds(JAX) | seconds(FLAX) for _ in range(given.rounds)]
    times = {name: clock.spread([taken[name] for taken in rounds]) for name in rounds[0]}
    medians = {name: spread["median"] for name, spread in times.items()}
    beyond = {name: before for before, statements in PROCESSES.items() for name in statements}
    for name, before in beyond.items():
        print(f"{name}: {medians[name] * 1e3:.1f} ms beyond {before}")
    content = {
        "beyond": beyond,
        "seconds": times,
        "of everything": {name: round(medians[name] / medians["zoo, everything"], 3) for name in ("zoo", "zoo, LeNet-5")},
        "aims": {"kernels": 0.05, "of everything": 0.667},
    }
    print(result.save("import-cost", content))
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
