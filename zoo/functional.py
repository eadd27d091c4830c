"""A zoo model as a pure function, for JAX code that does not use NNX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx


def evaluation_view(model: nnx.Module) -> nnx.Module:
    """A view in evaluation mode (no dropout, running statistics) on the model's arrays: updates to either affect both."""
    return nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)


def training_view(model: nnx.Module) -> nnx.Module:
    """A view in training mode on the model's arrays."""
    return nnx.view(model, deterministic=False, use_running_average=False, raise_if_not_found=False)


def split(model: nnx.Module) -> tuple[Any, nnx.State, nnx.State]:
    """The model's structure, its trainable parameters, and all its other state (running statistics, random streams)."""
    return nnx.split(model, nnx.Param, ...)  # type: ignore[return-value]


def _named(tree: Any) -> Any:
    """A nested dict with strings for keys, as Orbax and flax.traverse_util ask for; NNX numbers the members of a list."""
    return {str(key): _named(value) for key, value in tree.items()} if isinstance(tree, dict) else tree


def _numbered(tree: Any, like: Any) -> Any:
    """The same with the keys of `like`."""
    return {key: _numbered(tree[str(key)], value) for key, value in like.items()} if isinstance(like, dict) else tree


def functional(model: nnx.Module) -> tuple[Any, Any, Callable]:
    """Split a model into parameters, state and a pure function of both.

    Returns:
      params: nested dict of the trainable arrays, all keys strings ("0", "1", ... for the members of a list).
      state: nested dict of the other arrays (running statistics); empty if the model has none.
      apply: ``apply(params, state, x, train=False, rngs=None) -> (outputs, state)``. `rngs` is a jax.random.key, needed
        if training draws random numbers (dropout). Works under jit, grad, vmap and scan; `model` itself is never changed.
    """
    definitions: dict[bool, Any] = {}
    for train, view in ((True, training_view), (False, evaluation_view)):
        definitions[train], params, random, rest = nnx.split(view(model), nnx.Param, nnx.RngState, ...)  # type: ignore[misc]
    numbered_params, numbered_rest = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)
    pure_params, pure_rest = _named(numbered_params), _named(numbered_rest)
    random_leaves, random_structure = jax.tree.flatten(random)

    def as_state(name: str, template: Any, values: Any, like: Any) -> Any:
        if jax.tree.structure(values) != jax.tree.structure(_named(like)):  # type: ignore[operator]
            raise ValueError(f"{name}: its structure is not the one that zoo.functional returned for this model")
        return jax.tree.unflatten(jax.tree.structure(template), jax.tree.leaves(_numbered(values, like)))

    def apply(params_: Any, state: Any, x: jax.Array, train: bool = False, rngs: jax.Array | None = None) -> tuple[Any, Any]:
        leaves = random_leaves
        if train and leaves:
            if rngs is None:
                raise ValueError("rngs: a jax.random.key is needed, since this model draws random numbers in training mode")
            leaves = [
                jax.random.fold_in(rngs, number) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
                for number, leaf in enumerate(leaves)
            ]
        merged = nnx.merge(
            definitions[bool(train)],
            as_state("params", params, params_, numbered_params),
            jax.tree.unflatten(random_structure, leaves),
            as_state("state", rest, state, numbered_rest),
        )
        outputs = merged(x)
        return outputs, _named(nnx.to_pure_dict(nnx.state(merged, nnx.Not(nnx.Any(nnx.Param, nnx.RngState)))))

    return pure_params, pure_rest, apply
