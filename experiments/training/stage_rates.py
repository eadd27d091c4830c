"""Stages of a network that are trained more slowly than the others, or not at all."""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx

import zoo
from experiments.errors import UserError, nearest
from zoo.weights.names import layer_at


def _network(model: Any) -> tuple[Any, str]:
    """The network of zoo/ in what is trained, and what stands before the paths of its parameters there."""
    return (model.model, "model.") if hasattr(model, "carried") else (model, "")


def _before(model: nnx.Module, freeze_until: str | None) -> dict[str, tuple[str, ...]]:
    """The stages before `freeze_until`, with their paths.

    Raises:
      UserError: there is no such stage, or none before it.
    """
    if freeze_until is None:
        return {}
    found = zoo.stages(model)
    names = list(found)
    if freeze_until not in names:
        raise UserError(f"{nearest('freeze_until', freeze_until, names)}; the stages are {', '.join(names)}")
    if freeze_until == names[0]:
        raise UserError(f"freeze_until: {freeze_until} given, which is the first stage: no stage precedes it")
    return {name: found[name] for name in names[: names.index(freeze_until)]}


def frozen(model: nnx.Module, freeze_until: str | None) -> nnx.Module:
    """The model with the stages before `freeze_until` in evaluation mode: statistics stay, nothing is dropped."""
    network, _ = _network(model)
    for paths in _before(network, freeze_until).values():
        for path in paths:
            layer_at(network, path).eval()
    return model


def rates(model: nnx.Module, freeze_until: str | None, layer_decay: float | None) -> Any:
    """A factor on the learning rate for each parameter: 0 before `freeze_until`, then `layer_decay` to the power of the number
    of stages after it, 1 in the last. None where all are 1.

    Returns:
      A tree of floats, of the structure of the parameters of `zoo.split`.
    """
    if freeze_until is None and layer_decay in (None, 1):
        return None
    network, prefix = _network(model)
    stages, before = zoo.stages(network), _before(network, freeze_until)
    count = len(stages)
    by_path = {
        f"{prefix}{path}.": 0.0 if name in before else (layer_decay or 1.0) ** (count - 1 - index)
        for index, (name, paths) in enumerate(stages.items())
        for path in paths
    }

    def rate(path: Any, _: Any) -> float:
        name = jax.tree_util.keystr(path, simple=True, separator=".") + "."
        return next((factor for start, factor in by_path.items() if name.startswith(start)), 1.0)

    return jax.tree.map_with_path(rate, zoo.split(zoo.training_view(model))[1])


def stopped(params: Any, rates: Any) -> Any:
    """The parameters, without a gradient where the rate is 0; the backward pass ends there."""
    if rates is None:
        return params
    return jax.tree.map(lambda value, rate: value if rate else jax.lax.stop_gradient(value), params, rates)


def kept(old: Any, new: Any, rates: Any) -> Any:
    """The new values, bit for bit the old ones where the rate is 0."""
    if rates is None or new is None:
        return new
    return jax.tree.map(lambda before, after, rate: after if rate else before, old, new, rates)


def describe(params: Any, rates: Any) -> str:
    """How much is trained, in words; "" where all is."""
    if rates is None:
        return ""
    sizes = list(zip(jax.tree.leaves(params), jax.tree.leaves(rates), strict=True))
    trained, every = sum(leaf.size for leaf, rate in sizes if rate), sum(leaf.size for leaf, _ in sizes)
    slowest = min(rate for _, rate in sizes if rate)
    slower = f", the first of them at {slowest:.2g} of the learning rate" if slowest < 1 else ""
    return f"{trained:,} of {every:,} parameters are trained{slower}"
