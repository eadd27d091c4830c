"""Classification of images, with class names."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.compiling import compiler_options
from zoo.functional import evaluation_view
from zoo.images import preprocess
from zoo.preprocessing import Preprocessing
from zoo.weights.info import weights_info
from zoo.weights.names import layer_at


class Prediction(NamedTuple):
    """A class name, and the probability that the model assigns to it."""

    name: str
    probability: float


@functools.cache
def _probabilities() -> Any:
    def probabilities(graph: Any, state: Any, images: jax.Array) -> jax.Array:
        return jax.nn.softmax(nnx.merge(graph, state)(images).astype(jnp.float32))

    return jax.jit(probabilities, static_argnums=0, compiler_options=compiler_options())


def predict(
    model: nnx.Module, image: Any, k: int = 5, *, preprocessing: Preprocessing | None = None, classes: Any = None
) -> Any:
    """The `k` most likely classes of an image, the most likely first. The model may be in either mode, and is not changed.

    Every call reads the model's current values, so batch norm is not folded; for many calls, pass `zoo.fold_batch_norm(model)`.

    Args:
      model: a classifier of images.
      image: anything that `zoo.preprocess` accepts.
      k: number of classes; all if there are fewer.
      preprocessing: replaces that of the model's weights.
      classes: class names in the order of the outputs, if the weights have none; with neither, classes are numbered.

    Returns:
      A list of `Prediction`; for a list of images a list of such lists.

    Raises:
      ValueError: the image cannot be read, the model does not read images, or the names are not as many as its outputs.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise ValueError(f"k: {k!r} given, a whole number of at least 1 is needed")
    classifier = getattr(model, "classifier_layers", ())[:1]
    if any(layer_at(model, path) is None for path in classifier):
        raise ValueError(f"model: this {type(model).__name__} has no classifier; reset_classifier(num_classes) makes one")
    images = preprocess(model, image, preprocessing=preprocessing)
    rows = np.asarray(_probabilities()(*nnx.split(evaluation_view(model)), images))
    outputs = rows.shape[-1]
    names = tuple(map(str, classes if classes is not None else weights_info(model).classes or range(outputs)))
    if len(names) != outputs:
        raise ValueError(f"classes: {len(names)} names given, the model has {outputs} outputs")
    best = [
        [Prediction(names[label], float(row[label])) for label in np.argsort(-row, kind="stable")[: int(k)]] for row in rows
    ]
    several = isinstance(image, list | tuple) or getattr(image, "ndim", 0) == 4
    return best if several else best[0]
