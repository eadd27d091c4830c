"""DCGAN, a quarter as wide as the paper's, on the handwritten digits at 32x32.

python -m experiments.train dcgan

Without R1 its discriminator learns the few training images by heart: the Fréchet distance then stays above 40 however long it
trains. docs/training.md has the figures.
"""

from experiments.recipes.settings import adversarial

RECIPE = adversarial(
    model="dcgan", epochs=240, ema=0.995, evaluate_every=20, checkpoint_every=20, data_options="size=32,shift=0",
    model_options="image_size=32,generator_width=16,discriminator_width=16", task_options="r1=10.0",
)  # fmt: skip
