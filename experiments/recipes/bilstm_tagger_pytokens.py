"""Bidirectional LSTM that labels each character of Python source with the kind of its token.

    python -m experiments.train bilstm_tagger

Two minutes on two cores to 99.7 % of the held-out characters;
three seeds in experiments/results/cpu/recurrent-learning.json.
"""

from experiments.recipes.settings import characters

RECIPE = characters(model="bilstm_tagger", data="pytokens", task="tagging", epochs=0.5, batch_size=32, data_options="")
