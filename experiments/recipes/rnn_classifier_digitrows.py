"""RNN on the handwritten digits, read row by row.

python -m experiments.train rnn_classifier
"""

from experiments.recipes.settings import digit_rows

RECIPE = digit_rows(model="rnn_classifier")
