"""Counts parameters and multiply-adds, and lists a model's layers, by tracing alone."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import jaxprs_in_params

import kernels
from zoo.functional import evaluation_view


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """One layer: its path, type, output shape for one example, own parameters and multiply-adds."""

    path: str
    kind: str
    output_shape: tuple[int, ...]
    params: int
    macs: int


def count_params(model: nnx.Module) -> int:
    """Number of trainable values."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def _macs_of(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        out = math.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += out * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            numbers = equation.params["dimension_numbers"]
            kernel = equation.invars[1].aval.shape
            # A transposed convolution is written as one over zeros put between the inputs, whose products nobody needs.
            zeros = math.prod(equation.params["lhs_dilation"])
            total += out * math.prod(kernel) // kernel[numbers.rhs_spec[0]] // zeros
        repeats = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        total += repeats * sum(_macs_of(inner) for inner in jaxprs_in_params(equation.params))
    return total


@contextlib.contextmanager
def _plain_operators() -> Iterator[None]:
    # The count is that of the definition, not of the formulation that one device happens to prefer.
    with kernels.target("nvidia-h200"), kernels.use("xla"):
        yield


def _trace(call: Any, *shapes: Any) -> tuple[int, Any]:
    with _plain_operators():
        jaxpr, output = jax.make_jaxpr(call, return_shape=True)(*shapes)
    return _macs_of(jaxpr.jaxpr), output


def count_macs(model: nnx.Module, input_shape: tuple[int, ...], dtype: Any = jnp.float32) -> int:
    """Multiply-adds of convolutions and matrix products in the evaluation of one example of `input_shape` (no batch)."""
    return sum(row.macs for row in summarize(model, input_shape, dtype) if row.path == "")


def summarize(model: nnx.Module, input_shape: tuple[int, ...], dtype: Any = jnp.float32) -> list[LayerRow]:
    """A row per module with its own parameters, in the order in which they run, and a last row, path "", for the whole model.

    Args:
      input_shape: one example, without the batch.
      dtype: of the input; an integer type for models that read token ids.
    """
    graph, state = nnx.split(evaluation_view(model))
    rows: dict[str, LayerRow] = {}

    def own_params(module: nnx.Module) -> int:
        return sum(math.prod(value.shape) for value in vars(module).values() if isinstance(value, nnx.Param))

    def run(leaves: Any, x: jax.Array) -> Any:
        merged = nnx.merge(graph, leaves)
        paths = {id(module): ".".join(map(str, path)) for path, module in nnx.iter_modules(merged)}
        with_params = [module for _, module in nnx.iter_modules(merged) if own_params(module)]
        with contextlib.ExitStack() as stack:
            for kind in {type(module) for module in with_params} - {type(merged)}:
                stack.enter_context(mock.patch.object(kind, "__call__", recording(kind.__call__, paths)))
            return merged(x)

    def recording(original: Any, paths: dict[int, str]) -> Any:
        def call(module: nnx.Module, *arguments: Any, **keywords: Any) -> Any:
            jaxpr, output = jax.make_jaxpr(lambda *a: original(module, *a, **keywords), return_shape=True)(*arguments)
            shape = jax.tree.leaves(output)[0].shape[1:]
            path = paths[id(module)]
            rows[path] = LayerRow(path, type(module).__name__, shape, own_params(module), _macs_of(jaxpr.jaxpr))
            return original(module, *arguments, **keywords)

        return call

    total, output = _trace(run, state, jax.ShapeDtypeStruct((1, *input_shape), dtype))
    shape = jax.tree.leaves(output)[0].shape[1:]
    return [*rows.values(), LayerRow("", type(model).__name__, shape, count_params(model), total)]
