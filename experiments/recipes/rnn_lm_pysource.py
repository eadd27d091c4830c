"""RNN language model on the characters of the Python standard library, by truncated back-propagation with a carried state.

    python -m experiments.train rnn_lm

The setting of lstm_lm, for comparison: about two and a half minutes to 1.9 bits per character held out;
three seeds in experiments/results/cpu/recurrent-learning.json.
"""

from experiments.recipes.settings import characters

RECIPE = characters(model="rnn_lm")
