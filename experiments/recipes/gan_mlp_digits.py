"""The fully connected GAN on the handwritten digits at 28x28, told which digit to draw (Mirza and Osindero 2014).

python -m experiments.train gan_mlp

Without R1 its discriminator learns the few training images by heart. Without labels (--task-options r1=10.0) a generator with
one hidden layer draws what lies between the digits too, for several times as many steps; docs/training.md has the figures.
"""

from experiments.recipes.settings import adversarial

RECIPE = adversarial(
    model="gan_mlp", epochs=600, ema=0.999, steps_per_call=11, evaluate_every=100, checkpoint_every=100,
    data_options="size=28,shift=0", task_options="r1=10.0,conditional=True",
)  # fmt: skip
