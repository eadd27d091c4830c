"""GANs on the digits with the settings of Radford et al. 2015 and the penalty R1 of Mescheder et al. 2018.

Without R1 a discriminator learns the few training images by heart; DCGAN's Fréchet distance then stays above 40 however long it
trains. docs/training.md has the figures.
"""

import functools

from experiments.recipes.recipe import Recipe

adversarial = functools.partial(
    Recipe, data="digits", task="gan", batch_size=64, optimizer="adam", learning_rate=2e-4, momentum=0.5, schedule="constant",
)  # fmt: skip

RECIPES = (
    # Told which digit to draw (Mirza and Osindero 2014). Without labels (--task-options r1=10.0) a generator with one hidden
    # layer draws what lies between the digits too, for several times as many steps.
    adversarial(
        "gan_mlp", epochs=600, ema=0.999, steps_per_call=11, evaluate_every=100, checkpoint_every=100,
        data_options="size=28,shift=0", task_options="r1=10.0,conditional=True",
    ),
    # At 32x32, a quarter as wide as the paper's.
    adversarial(
        "dcgan", epochs=240, ema=0.995, evaluate_every=20, checkpoint_every=20, data_options="size=32,shift=0",
        model_options="image_size=32,generator_width=16,discriminator_width=16", task_options="r1=10.0",
    ),
)  # fmt: skip
