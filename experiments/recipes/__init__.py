"""The recipes, a file for each kind of network: the first one of a model is what `experiments.train MODEL` runs."""

from __future__ import annotations

import zoo
from experiments.errors import UserError, nearest
from experiments.recipes import adversarial, convolutional, recurrent
from experiments.recipes.recipe import Recipe

RECIPES: tuple[Recipe, ...] = (*convolutional.RECIPES, *recurrent.RECIPES, *adversarial.RECIPES)


def find(model: str, data: str | None = None) -> Recipe:
    """The recipe for a model, on this data set where there is one; else the model's first, else a plain one on digits.

    Raises:
      UserError: no such model.
    """
    if model not in zoo.list_models():
        raise UserError(nearest("model", model, zoo.list_models()))
    own = [recipe for recipe in RECIPES if recipe.model == model]
    wanted = [r for r in own if data is None or r.data.partition(":")[0] == data.partition(":")[0]]
    return (wanted or own or [Recipe(model, "digits")])[0]
