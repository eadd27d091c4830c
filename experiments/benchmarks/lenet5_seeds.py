"""Ten seeds of the lenet5 recipe: held-out accuracy and seconds of each. python -m experiments.benchmarks.lenet5_seeds.

Writes experiments/results/cpu/lenet5-digits.json. Each run is a process of its own, as `make train` starts it.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import tempfile
import time

from experiments.benchmarks import result


def main() -> None:
    runs = []
    for seed in range(10):
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            command = [sys.executable, "-m", "experiments.train", "lenet5", "--seed", str(seed), "--workdir", folder]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            summary = json.loads((pathlib.Path(folder) / "summary.json").read_text())
        runs.append(
            {
                "seed": seed,
                "accuracy": summary["eval_accuracy"],
                "train_seconds": summary["seconds"],
                "process_seconds": round(time.perf_counter() - begun, 2),
            }
        )
        print(runs[-1])
    worst, slowest = min(r["accuracy"] for r in runs), max(r["process_seconds"] for r in runs)
    print(f"worst {worst:.2%}, slowest {slowest:.1f} s", result.write("lenet5-digits", {"epochs": 20, "runs": runs}))


if __name__ == "__main__":
    main()
