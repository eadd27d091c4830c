"""ResNet-20 for small images on the handwritten digits.

    python -m experiments.train resnet20_cifar

On 32x32 images of one channel. The target is 98.5 % of the held-out fifth; experiments/benchmarks/conv_learning.py measures it
for three seeds and writes experiments/results/cpu/conv-learning.json. (There is no published figure for this split.)
"""

from experiments.recipes.recipe import Recipe

RECIPE = Recipe(
    "resnet20_cifar", "digits", epochs=15, batch_size=64, learning_rate=5e-3, weight_decay=0.02, schedule="one_cycle", ema=0.98
)
