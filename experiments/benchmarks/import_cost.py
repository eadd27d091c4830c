"""What `import kernels` costs beyond jax: python -m experiments.benchmarks.import_cost.

Measured in 15 new processes. Aim: 50 ms. Writes experiments/results/cpu/import-cost.json.
"""

from __future__ import annotations

import subprocess
import sys

from experiments.measuring import clock, result

PROGRAM = """
import time
import jax, jax.numpy
begun = time.perf_counter()
import kernels
print(time.perf_counter() - begun)
"""


def main(runs: int = 15) -> None:
    taken = []
    for _ in range(runs):
        found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
        taken.append(float(found.stdout))
    seconds = clock.spread(taken)
    print(result.save("import-cost", {"seconds": seconds, "aim": 0.05}), seconds)


if __name__ == "__main__":
    main()
