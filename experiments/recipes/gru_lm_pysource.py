"""GRU language model on the characters of the Python standard library, by truncated back-propagation with a carried state.

python -m experiments.train gru_lm
"""

from experiments.recipes.settings import characters

RECIPE = characters(model="gru_lm")
