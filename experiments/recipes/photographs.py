"""Classifiers of one's own images: trained anew, or from weights."""

import functools

from experiments.recipes.recipe import Recipe

# A few hundred to a few hundred thousand images, of which nothing is known. AdamW's steps do not grow with the gradient: a
# network without batch norm, or images of another scale, do not diverge.
from_scratch = functools.partial(
    Recipe, epochs=30, batch_size=64, optimizer="adamw", learning_rate=1e-3, warmup_epochs=2, weight_decay=0.05, clip_norm=1.0
)

# From trained weights: small steps, so that what they know is not lost while the new classifier, which knows nothing, still
# sends large gradients back.
fine_tuning = functools.partial(
    Recipe, epochs=10, batch_size=32, optimizer="adamw", learning_rate=3e-4, warmup_epochs=1, weight_decay=0.05, clip_norm=1.0
)
