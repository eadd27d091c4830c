"""The data of a recipe, made ready as its model and its weights want them."""

from __future__ import annotations

import zoo
from experiments import data, own
from experiments.data.base import Dataset
from experiments.data.imagefolder import square
from experiments.errors import UserError, explain
from experiments.recipes.recipe import Recipe
from zoo.preprocessing import Preprocessing
from zoo.registry import registered_name
from zoo.weights.sources import source_info


def load(recipe: Recipe, preprocessing: Preprocessing | None = None) -> Dataset:
    """The data set of a recipe.

    Args:
      preprocessing: with which the run was begun; None where it begins now.

    Raises:
      UserError: an unknown name, a path that is missing or holds something else, an option that the data set does not take.
    """
    return data.load(recipe.data, preprocessing=preprocessing or preprocessing_for(recipe), **recipe.options("data"))


def preprocessing_for(recipe: Recipe) -> Preprocessing | None:
    """How images are made ready: as the recipe's weights say, else as the model's published ones do.

    Without weights as ImageNet's, at the size that the model reads. None where nothing is known, or it reads no images.

    Raises:
      UserError: the weights cannot be found or read.
    """
    name = registered_name(own.function_of("model", recipe.model)) if own.is_own(recipe.model) else recipe.model
    info = zoo.model_info(name) if name else None
    if recipe.weights is not None:
        try:
            said = source_info(recipe.weights).preprocessing or (info and info.preprocessing)
        except (ValueError, OSError) as error:
            raise UserError(f"weights: {explain(error).removeprefix('source: ')}") from error
        if said:
            return said
    if info is None or len(info.input_shape) != 3:
        return None
    return square(info.input_shape[0])


def fitting_batch_size(recipe: Recipe, dataset: Dataset, devices: int = 1) -> int:
    """The recipe's batch size; where the training data are fewer than four such batches, a power of two that they give four of.

    Data whose batches hang together, such as running text, keep the recipe's.

    Args:
      devices: the result is a multiple of it.
    """
    examples, size = len(dataset.train), recipe.batch_size
    if hasattr(dataset.train, "training_batches") or size * 4 <= examples:
        return size
    return max((1 << max(examples // 4, 1).bit_length() - 1) // devices, 1) * devices
