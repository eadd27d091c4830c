"""Three seeds of each recurrent recipe. python -m experiments.benchmarks.recurrent_learning [RECIPE ...].

Writes experiments/results/cpu/recurrent-learning.json. All of them take about an hour and a half on two cores;
names of recipes run those alone and leave the others' figures as they are.
"""

from __future__ import annotations

import sys

from experiments.benchmarks import seeds
from experiments.measuring import result

SEEDS = (0, 1, 2)
# name -> (flags of experiments.train, what is reported)
RECIPES: dict[str, tuple[list[str], str]] = {
    "lstm_lm": (["lstm_lm"], "eval_bits_per_character"),
    "gru_lm": (["gru_lm"], "eval_bits_per_character"),
    "rnn_lm": (["rnn_lm"], "eval_bits_per_character"),
    "bilstm_tagger": (["bilstm_tagger"], "eval_accuracy"),
    # As many weights in one direction as the tagger has in two.
    "lstm_tagger": (["bilstm_tagger", "--model-options", "bidirectional=False,hidden_size=192"], "eval_accuracy"),
    "rnn_classifier": (["rnn_classifier"], "eval_accuracy"),
    "lstm_classifier": (["lstm_classifier"], "eval_accuracy"),
    "bilstm_classifier": (["bilstm_classifier"], "eval_accuracy"),
}


def main(names: list[str]) -> None:
    unknown = set(names) - set(RECIPES)
    if unknown:
        sys.exit(f"error: {', '.join(sorted(unknown))} given, known: {', '.join(RECIPES)}")
    figures = result.kept("recurrent-learning", "recipes")
    for name in names or RECIPES:
        flags, figure = RECIPES[name]
        figures[name] = seeds.over(flags, SEEDS, [figure])
        print(result.save("recurrent-learning", {"recipes": figures}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
