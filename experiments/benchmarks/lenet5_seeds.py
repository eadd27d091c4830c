"""Ten seeds of the lenet5 recipe: held-out accuracy and seconds of each. python -m experiments.benchmarks.lenet5_seeds.

Writes experiments/results/cpu/lenet5-digits.json.
"""

from __future__ import annotations

from experiments.benchmarks import seeds
from experiments.measuring import result


def main() -> None:
    found = []
    for seed in range(10):
        summary = seeds.run(["lenet5"], seed)
        found.append(
            {
                "seed": seed,
                "accuracy": summary["eval_accuracy"],
                "train_seconds": summary["seconds"],
                "process_seconds": summary["process_seconds"],
            }
        )
        print(found[-1])
    worst, slowest = min(r["accuracy"] for r in found), max(r["process_seconds"] for r in found)
    print(f"worst {worst:.2%}, slowest {slowest:.1f} s", result.save("lenet5-digits", {"epochs": 20, "runs": found}))


if __name__ == "__main__":
    main()
