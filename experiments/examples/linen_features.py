"""A zoo trunk inside a Flax Linen model: python -m experiments.examples.linen_features.

The trunk's parameters become Linen parameters and its running statistics a Linen collection, so that Linen's own tools
(init, apply, mutable, freezing by collection) see an ordinary model.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx

import zoo


class Trunk(linen.Module):
    """The last feature map of a zoo model, averaged: [batch, height, width, channels] to [batch, features]."""

    model: str
    stage: str
    options: Any = ()

    @linen.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        # The structure costs nothing to build abstractly; values are drawn only in `init`, below.
        abstract = nnx.eval_shape(lambda: zoo.create_model(self.model, **dict(self.options)))
        view = zoo.training_view(abstract) if train else zoo.evaluation_view(abstract)
        parts: Any = nnx.split(view, nnx.Param, ...)
        graph, params, state = parts

        def drawn(key: jax.Array) -> tuple[Any, Any]:
            model = zoo.create_model(self.model, rngs=nnx.Rngs(key), **dict(self.options))
            parts: Any = nnx.split(model, nnx.Param, ...)
            return nnx.to_pure_dict(parts[1]), nnx.to_pure_dict(parts[2])

        values = self.param("trunk", lambda key: drawn(key)[0])
        statistics = self.variable("batch_stats", "trunk", lambda: drawn(jax.random.key(0))[1])
        merged = nnx.merge(graph, _filled(params, values), _filled(state, statistics.value))
        features = zoo.features(merged, images)[self.stage]
        if train:
            statistics.value = nnx.to_pure_dict(nnx.state(merged, nnx.Not(nnx.Param)))
        return features


class Classifier(linen.Module):
    """Two classes from the features of a small ResNet."""

    @linen.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        features = Trunk("resnet20_cifar", "pool", (("in_channels", 1),))(images, train)
        return linen.Dense(2)(features)


def _filled(structure: nnx.State, values: Any) -> nnx.State:
    return jax.tree.unflatten(jax.tree.structure(structure), jax.tree.leaves(values))


def main() -> None:
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 1))
    classifier = Classifier()
    variables = classifier.init(jax.random.key(1), images)
    logits, updated = classifier.apply(variables, images, train=True, mutable=["batch_stats"])
    moved = updated["batch_stats"]["Trunk_0"]["trunk"]["bn1"]["num_batches_tracked"]
    print(f"logits {jnp.shape(logits)}, {moved} batch in the statistics, collections {', '.join(variables)}")


if __name__ == "__main__":
    main()
