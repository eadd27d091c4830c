"""Recurrent networks: language models and a tagger on characters of Python source, classifiers that read a digit row by row.

Times are on two CPU cores; three seeds of each are in experiments/results/cpu/recurrent-learning.json.
"""

import functools

from experiments.recipes.recipe import Recipe

# Truncated back-propagation over 64 characters, with a carried state.
characters = functools.partial(
    Recipe, data="pysource", task="language_model", epochs=1.75, batch_size=16, learning_rate=4e-3, warmup_epochs=0.02,
    clip_norm=1.0, data_options="length=64", evaluate_every=0.25, checkpoint_every=0.25,
)  # fmt: skip
digit_rows = functools.partial(
    Recipe, data="digitrows", epochs=30, batch_size=32, learning_rate=3e-3, weight_decay=0.01, clip_norm=1.0, ema=0.98,
    evaluate_every=5,
)  # fmt: skip

RECIPES = (
    characters("lstm_lm"),  # at most 1.6 bits per character of the test text after about nine minutes
    characters("gru_lm"),
    characters("rnn_lm"),  # 1.9 bits per character after about two and a half minutes
    # The kind of token that each character belongs to: 99.5 % of the test characters after two minutes, and
    # 99.7 % of those of short texts.
    characters("bilstm_tagger", data="pytokens", task="tagging", epochs=0.5, batch_size=32, data_options=""),
    digit_rows("rnn_classifier"),
    digit_rows("lstm_classifier"),
    digit_rows("bilstm_classifier"),
)
