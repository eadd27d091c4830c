"""Optimizers and learning-rate schedules of a recipe, all from optax."""

from __future__ import annotations

from typing import Any

import jax
import optax

from experiments.recipes.recipe import Recipe


def make_schedule(recipe: Recipe, updates: int, per_epoch: float) -> optax.Schedule:
    """Learning rate by update number.

    Args:
      updates: optimizer updates in the whole run.
      per_epoch: optimizer updates in one epoch.
    """
    peak, warmup = recipe.learning_rate, min(round(recipe.warmup_epochs * per_epoch), updates - 1)
    rest = max(updates - warmup, 1)
    if recipe.schedule == "one_cycle":
        return optax.cosine_onecycle_schedule(max(updates, 2), peak, pct_start=max(warmup / updates, 0.3))
    if recipe.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, rest)
    elif recipe.schedule == "step":
        after = optax.piecewise_constant_schedule(peak, {rest * k // 9: 0.1 for k in (3, 6, 8)})
    else:
        after = optax.constant_schedule(peak)
    if warmup < 1:
        return after
    return optax.join_schedules([optax.linear_schedule(peak / warmup, peak, warmup), after], [warmup])


def make_optimizer(recipe: Recipe, schedule: optax.Schedule, rates: Any = None) -> optax.GradientTransformation:
    """The recipe's optimizer: clipping, then the method with its decay, then accumulation over batches.

    Args:
      rates: a factor on the learning rate for each parameter, 0 for one that is not trained; None for 1 everywhere.
    """
    r = recipe
    # Arrays of two or more dimensions, so neither biases nor norms.
    mask = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    decay: dict[str, Any] = {"weight_decay": r.weight_decay, "mask": mask}
    coupled = [optax.add_decayed_weights(**decay)] if r.weight_decay else []
    methods = {
        "sgd": lambda: [*coupled, optax.sgd(schedule, momentum=r.momentum or None, nesterov=bool(r.momentum))],
        "rmsprop": lambda: [*coupled, optax.rmsprop(schedule, momentum=r.momentum or None)],
        "adam": lambda: [*coupled, optax.adam(schedule, r.momentum, r.beta2)],
        "adamw": lambda: [optax.adamw(schedule, r.momentum, r.beta2, **decay)],
        "lamb": lambda: [optax.lamb(schedule, r.momentum, r.beta2, **decay)],
    }
    clip = [optax.clip_by_global_norm(r.clip_norm)] if r.clip_norm else []
    chain = optax.chain(*clip, *methods[r.optimizer]())
    if rates is not None:
        scale = optax.stateless(lambda updates, _: jax.tree.map(lambda update, rate: update * rate, updates, rates))
        trained = jax.tree.map(lambda rate: rate > 0, rates)  # the state holds nothing for the others
        chain = optax.chain(optax.masked(chain, trained), scale)
    return optax.MultiSteps(chain, r.accumulate).gradient_transformation() if r.accumulate > 1 else chain
