"""Bidirectional LSTM on the handwritten digits, read row by row.

python -m experiments.train bilstm_classifier
"""

from experiments.recipes.recipe import Recipe

RECIPE = Recipe(
    model="bilstm_classifier",
    data="digitrows",
    epochs=30,
    batch_size=32,
    learning_rate=3e-3,
    weight_decay=0.01,
    clip_norm=1.0,
    ema=0.98,
    evaluate_every=5,
)
