"""What several recipes share, said once: each is a `Recipe` that still wants a model and what is its own."""

from __future__ import annotations

import functools

from experiments.recipes.recipe import Recipe

# Language models on characters, by truncated back-propagation over 64 of them.
characters = functools.partial(
    Recipe, data="pysource", task="language_model", epochs=1.75, batch_size=16, learning_rate=4e-3, warmup_epochs=0.02,
    clip_norm=1.0, data_options="length=64", evaluate_every=0.25, checkpoint_every=0.25,
)  # fmt: skip
# Recurrent classifiers that read a digit row by row.
digit_rows = functools.partial(
    Recipe, data="digitrows", epochs=30, batch_size=32, learning_rate=3e-3, weight_decay=0.01, clip_norm=1.0, ema=0.98,
    evaluate_every=5,
)  # fmt: skip
# GANs on the digits with the settings of Radford et al. 2015 and the penalty of Mescheder et al. 2018.
adversarial = functools.partial(
    Recipe, data="digits", task="gan", batch_size=64, optimizer="adam", learning_rate=2e-4, momentum=0.5, schedule="constant",
)  # fmt: skip
# Momentum SGD: on ImageNet for networks with batch norm, on CIFAR-10, and as the networks before batch norm were trained.
imagenet = functools.partial(
    Recipe, data="imagefolder", epochs=90, batch_size=256, optimizer="sgd", learning_rate=0.1, warmup_epochs=5,
    weight_decay=1e-4, precision="bfloat16",
)  # fmt: skip
cifar = functools.partial(Recipe, data="cifar10", optimizer="sgd", learning_rate=0.1)
stepwise = functools.partial(
    Recipe, data="imagefolder", optimizer="sgd", learning_rate=0.01, schedule="step", weight_decay=5e-4
)
