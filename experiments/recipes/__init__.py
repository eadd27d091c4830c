"""The recipes, a file for each kind of network: the first one of a model is what `experiments.train MODEL` runs."""

from __future__ import annotations

import zoo
from experiments import data as datasets
from experiments import own
from experiments.errors import UserError, nearest
from experiments.recipes import adversarial, convolutional, photographs, recurrent
from experiments.recipes.recipe import Recipe

RECIPES: tuple[Recipe, ...] = (*convolutional.RECIPES, *recurrent.RECIPES, *adversarial.RECIPES)


def find(model: str, data: str | None = None, weights: str | None = None) -> Recipe:
    """The recipe for a model.

    With weights, one for fine-tuning; else that for this data set where there is one; for images of one's own one that holds
    for any of them; else the model's first, else a plain one on digits.

    Args:
      model: registry name, MODULE:FUNCTION, or the path of a recipe file, which says all.

    Raises:
      UserError: no such model.
    """
    if model.endswith(".py"):
        recipe = own.recipe_from(model)
        if not isinstance(recipe, Recipe):
            raise UserError(
                f"recipe: RECIPE of {model} is a {type(recipe).__name__}, a Recipe of experiments.recipes.recipe is needed"
            )
        return recipe
    if model not in zoo.list_models() and not own.is_own(model):
        module, colon, _ = model.partition(":")
        if colon:
            raise UserError(f"model: {model} given, but there is no module {module}, here or installed")
        raise UserError(nearest("model", model, zoo.list_models()))
    theirs = [recipe for recipe in RECIPES if recipe.model == model]
    first = (theirs or [Recipe(model, "digits")])[0]
    if weights is not None:
        return photographs.fine_tuning(model, data or first.data, task=first.task, weights=weights)
    wanted = [r for r in theirs if data is None or r.data.partition(":")[0] == data.partition(":")[0]]
    images = data if data and (data.startswith("imagefolder:") or datasets.is_own(data)) else None
    if images and not wanted and first.task == "classification":
        return photographs.from_scratch(model, images)
    return (wanted or [first])[0]
