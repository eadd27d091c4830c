"""LSTM on the handwritten digits, read row by row.

python -m experiments.train lstm_classifier
"""

from experiments.recipes.settings import digit_rows

RECIPE = digit_rows(model="lstm_classifier")
