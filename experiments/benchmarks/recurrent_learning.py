"""Three seeds of each recurrent recipe. python -m experiments.benchmarks.recurrent_learning [RECIPE ...].

Writes experiments/results/cpu/recurrent-learning.json. Each run is a process of its own, as a person would start it. All of
them take about an hour and a half on two cores; names of recipes run those alone and leave the others' figures as they are.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

from experiments.benchmarks import result

SEEDS = (0, 1, 2)
# name -> (flags of experiments.train, what is reported)
RECIPES: dict[str, tuple[list[str], str]] = {
    "lstm_lm": (["lstm_lm"], "eval_bits_per_character"),
    "gru_lm": (["gru_lm"], "eval_bits_per_character"),
    "rnn_lm": (["rnn_lm"], "eval_bits_per_character"),
    "bilstm_tagger": (["bilstm_tagger"], "eval_accuracy"),
    # As many weights in one direction as the tagger has in two.
    "lstm_tagger": (
        ["bilstm_tagger", "--model-options", "bidirectional=False,hidden_size=192"],
        "eval_accuracy",
    ),
    "rnn_classifier": (["rnn_classifier"], "eval_accuracy"),
    "lstm_classifier": (["lstm_classifier"], "eval_accuracy"),
    "bilstm_classifier": (["bilstm_classifier"], "eval_accuracy"),
}


def train(flags: list[str], seed: int) -> dict[str, Any]:
    """One run: its summary, with the seconds of the whole process."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        command = [sys.executable, "-m", "experiments.train", *flags, "--seed", str(seed), "--workdir", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        summary = json.loads((pathlib.Path(folder) / "summary.json").read_text())
    return summary | {"process_seconds": round(time.perf_counter() - begun, 1)}


def measure(name: str) -> dict[str, Any]:
    flags, figure = RECIPES[name]
    runs = []
    for seed in SEEDS:
        summary = train(flags, seed)
        runs.append({"seed": seed} | {key: summary[key] for key in (figure, "steps", "seconds", "process_seconds")})
        print(name, runs[-1], flush=True)
    values = [r[figure] for r in runs]
    return {
        "command": f"python -m experiments.train {' '.join(flags)}",
        "parameters": summary["parameters"],
        "figure": figure,
        "mean": sum(values) / len(values),
        "lowest": min(values),
        "highest": max(values),
        "runs": runs,
    }


def main(names: list[str]) -> None:
    unknown = set(names) - set(RECIPES)
    if unknown:
        sys.exit(f"error: {', '.join(sorted(unknown))} given, known: {', '.join(RECIPES)}")
    file = result.RESULTS / "cpu" / "recurrent-learning.json"
    figures = json.loads(file.read_text())["recipes"] if file.exists() else {}
    for name in names or RECIPES:
        figures[name] = measure(name)
        print(result.write("recurrent-learning", {"recipes": figures}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
