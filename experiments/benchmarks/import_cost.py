"""What `import kernels` and `import zoo` cost beyond jax and flax: python -m experiments.benchmarks.import_cost [--out DIR].

Measured in new processes, the cases in turn: `import zoo`, which imports the registry alone; that with the family of one model;
that with everything which is imported when it is asked for. Aims: 50 ms for kernels; for zoo and a model a third less than for
everything. Writes experiments/results/cpu/import-cost.json.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from experiments.errors import run
from experiments.flags import Parser, output, whole
from experiments.measuring import clock, result

PROGRAM = """
import time
import {before}
begun = time.perf_counter()
{statement}
print(time.perf_counter() - begun)
"""
JAX, FLAX = "jax, jax.numpy", "jax, jax.numpy, flax.nnx"
# name -> what is imported before the clock starts, what then
CASES = {
    "kernels": (JAX, "import kernels"),
    "zoo": (FLAX, "import zoo"),
    "zoo, LeNet-5": (FLAX, "import zoo; zoo.LeNet5"),
    "zoo, everything": (FLAX, "from zoo import *"),
}


def seconds(before: str, statement: str) -> float:
    """Of a statement in a new process that has imported `before`."""
    command = [sys.executable, "-c", PROGRAM.format(before=before, statement=statement)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main(arguments: Sequence[str]) -> int:
    parser = Parser("experiments.benchmarks.import_cost", __doc__, "--rounds 3 --out runs")
    parser.add_argument("--rounds", type=whole(1, 1000), default=15, help="processes of each case (15)")
    parser.add_argument("--out", type=output, help="another folder for the result file")
    given = parser.parse_args(arguments)
    if given.out:
        result.RESULTS = given.out
    times = clock.in_turn({name: lambda _, case=case: seconds(*case) for name, case in CASES.items()}, given.rounds)  # type: ignore[misc]
    medians = {name: spread["median"] for name, spread in times.items()}
    for name, (before, _) in CASES.items():
        print(f"{name}: {medians[name] * 1e3:.1f} ms beyond {before}")
    content = {
        "beyond": {name: before for name, (before, _) in CASES.items()},
        "seconds": times,
        "of everything": {name: round(medians[name] / medians["zoo, everything"], 3) for name in ("zoo", "zoo, LeNet-5")},
        "aims": {"kernels": 0.05, "of everything": 0.667},
    }
    print(result.save("import-cost", content))
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
