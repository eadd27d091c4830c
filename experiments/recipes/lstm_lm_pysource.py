"""LSTM language model on the characters of the Python standard library, by truncated back-propagation with a carried state.

    python -m experiments.train lstm_lm

About nine minutes on two cores to at most 1.6 bits per character held out;
three seeds in experiments/results/cpu/recurrent-learning.json.
"""

from experiments.recipes.settings import characters

RECIPE = characters(model="lstm_lm")
