"""LSTM language model on the characters of the Python standard library, by truncated back-propagation with a carried state.

    python -m experiments.train lstm_lm

About nine minutes on two cores to at most 1.6 bits per character held out;
three seeds in experiments/results/cpu/recurrent-learning.json.
"""

from experiments.recipes.recipe import Recipe

RECIPE = Recipe(
    model="lstm_lm",
    data="pysource",
    task="language_model",
    epochs=1.75,
    batch_size=16,
    learning_rate=4e-3,
    warmup_epochs=0.02,
    data_options="length=64",
    clip_norm=1.0,
    evaluate_every=0.25,
    checkpoint_every=0.25,
)
