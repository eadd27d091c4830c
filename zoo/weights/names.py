"""Torch's name and layout for each variable of a model.

Two hooks on a module say where it differs from torch; where neither is there, attribute names are torch's names:

- ``torch_tensors() -> dict[str, TorchTensor]`` on a layer that holds variables: its own tensors by torch's names;
- ``torch_modules() -> dict[str, nnx.Module]`` on a module that holds others: its children by torch's names, such as
  ``{"features.0": self.conv1}``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from flax import nnx


@dataclasses.dataclass(frozen=True)
class TorchTensor:
    """A variable, and the way between its value and torch's tensor of it, both as NumPy arrays.

    Attributes:
      variable: what holds the value.
      to_torch, from_torch: inverse of each other; None where the layouts agree.
      dtype: torch's dtype where it is not the variable's (an int64 counter).
    """

    variable: nnx.Variable
    to_torch: Callable[[np.ndarray], np.ndarray] | None = None
    from_torch: Callable[[np.ndarray], np.ndarray] | None = None
    dtype: Any = None

    def export(self) -> np.ndarray:
        """The value in torch's layout, contiguous."""
        value = np.asarray(self.variable.get_value())
        if self.to_torch is not None:
            value = self.to_torch(value)
        return np.ascontiguousarray(value, self.dtype).reshape(value.shape)  # ascontiguousarray makes a scalar a vector

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the torch tensor."""
        value = self.variable.get_value()
        # A broadcast scalar costs nothing, and shows what the layout change does to the shape.
        probe = np.broadcast_to(np.zeros((), np.int8), value.shape)
        return tuple((probe if self.to_torch is None else self.to_torch(probe)).shape)

    def convert(self, tensor: np.ndarray) -> np.ndarray:
        """A torch tensor in the variable's layout and dtype."""
        value = tensor if self.from_torch is None else self.from_torch(tensor)
        dtype = self.variable.get_value().dtype
        if np.issubdtype(dtype, np.integer) and value.size and not _fits(value, dtype):
            raise OverflowError(f"{value.max()} does not fit in {dtype}")
        return np.ascontiguousarray(value).astype(dtype).reshape(value.shape)


def _fits(value: np.ndarray, dtype: Any) -> bool:
    limits = np.iinfo(dtype)
    return int(value.min()) >= limits.min and int(value.max()) <= limits.max


def _children(module: Any) -> Mapping[str, Any]:
    if isinstance(module, nnx.List | tuple | list):
        return {str(index): child for index, child in enumerate(module)}
    if isinstance(module, dict | nnx.Dict):
        return {str(name): child for name, child in module.items()}
    return {name: child for name, child in vars(module).items() if not name.startswith("_")}


def _tensors(node: Any, prefix: str, hooks: bool) -> Iterator[tuple[str, TorchTensor]]:
    if isinstance(node, nnx.Variable):
        if not isinstance(node, nnx.RngState):
            yield prefix.removesuffix("."), TorchTensor(node)
    elif hooks and hasattr(node, "torch_tensors"):
        for name, tensor in node.torch_tensors().items():
            yield prefix + name, tensor
    elif isinstance(node, nnx.Module | list | tuple | dict):
        children = node.torch_modules() if hooks and hasattr(node, "torch_modules") else _children(node)
        for name, child in children.items():
            yield from _tensors(child, f"{prefix}{name}.", hooks)


def torch_tensors(model: Any) -> dict[str, TorchTensor]:
    """Every tensor of torch's state_dict of the model, by name, in the model's own order. Random states have none."""
    return dict(_tensors(model, "", hooks=True))


def zoo_tensors(model: Any) -> dict[str, TorchTensor]:
    """Every variable by its own path in the model ("layer1.0.conv1.kernel"), in its own layout."""
    return dict(_tensors(model, "", hooks=False))


def layer_at(model: nnx.Module, path: str) -> Any:
    """The module at a dotted path of attributes and indices, or None where one of them is absent."""
    node: Any = model
    for name in path.split("."):
        node = node[int(name)] if name.isdigit() else getattr(node, name, None)
    return node
