"""The fully connected GAN on the handwritten digits at 28x28.

python -m experiments.train gan_mlp
"""

from experiments.training.recipe import Recipe

RECIPE = Recipe(
    model="gan_mlp",
    data="digits",
    task="gan",
    epochs=400,
    batch_size=64,
    optimizer="adam",
    learning_rate=2e-4,
    momentum=0.5,
    schedule="constant",
    ema=0.999,
    steps_per_call=11,
    evaluate_every=40,
    checkpoint_every=40,
    data_options="size=28,shift=0",
)
