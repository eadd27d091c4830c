"""LeNet-5 as published in 1998 on the handwritten digits.

python -m experiments.train lenet5_original
"""

from experiments.recipes.recipe import Recipe

RECIPE = Recipe(model="lenet5_original", data="digits", epochs=30, batch_size=32, learning_rate=2e-3, ema=0.98)
