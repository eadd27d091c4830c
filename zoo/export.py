"""A model as one file that runs where neither the zoo nor Flax is installed."""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import export

import kernels
from kernels.runtime.files import put_in_place
from zoo.arguments import need
from zoo.folding import fold_batch_norm
from zoo.functional import functional
from zoo.registry import model_info
from zoo.weights.names import layer_at

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def input_spec(model: nnx.Module) -> tuple[tuple[int, ...], Any]:
    """Shape of one example and dtype of the input that a model made by `create_model` takes by default.

    Raises:
      ValueError: the model was not made by `create_model`.
    """
    name = getattr(model, "zoo_name", None)
    if name is None:
        raise ValueError("input_shape: needed, since this model was not made by zoo.create_model")
    shape = model_info(name).input_shape
    if len(shape) == 3 and hasattr(model, "input_layer"):
        shape = (*shape[:2], layer_at(model, model.input_layer).in_channels)
    return shape, jnp.int32 if len(shape) == 1 else jnp.float32


def _batched_spec(model: nnx.Module, input_shape: tuple[int, ...] | None, dtype: Any) -> jax.ShapeDtypeStruct:
    """What a batch of any size looks like; what is not given is the registry's."""
    if input_shape is None or (dtype is None and hasattr(model, "zoo_name")):
        shape, default = input_spec(model)
        input_shape, dtype = input_shape or shape, dtype or default
    return jax.ShapeDtypeStruct((*export.symbolic_shape("batch"), *input_shape), dtype or jnp.float32)


def export_model(
    model: nnx.Module,
    path: str | os.PathLike,
    platforms: Sequence[str] = ("cpu", "cuda"),
    *,
    input_shape: tuple[int, ...] | None = None,
    dtype: Any = None,
) -> None:
    """Write the model in evaluation mode, weights included and batch norms folded, to one file, for any batch size.

    Only jax is needed to run it::

        from jax import export
        call = export.deserialize(bytearray(open(path, "rb").read())).call
        logits = call(images)   # [batch, *input_shape]

    The program consists of XLA's own operations, so one file runs on every platform, and in jax releases of the next six
    months or longer (see the compatibility guarantees of jax.export).

    Args:
      path: file to write, atomically.
      platforms: where it will run: "cpu", "cuda", "rocm", "tpu".
      input_shape: one example, without the batch; None for the registry's.
      dtype: of the input; None for the registry's.

    Raises:
      ValueError: an unknown platform, or an input shape that the model cannot take.
      ModuleNotFoundError: flatbuffers is not installed; the message names the extra.
    """
    platforms = tuple(platforms)
    if isinstance(platforms, str) or not platforms or set(platforms) - set(PLATFORMS):
        raise ValueError(f"platforms: {platforms!r} given, one or more of {', '.join(PLATFORMS)} are needed")
    need("flatbuffers", "export", "a file of jax.export")
    spec = _batched_spec(model, input_shape, dtype)
    params, state, apply = functional(fold_batch_norm(model))
    # The formulations that only a CPU prefers have no place in a file for others.
    with kernels.target("cpu" if platforms == ("cpu",) else "nvidia-h200"), kernels.use("xla"):
        exported = export.export(jax.jit(lambda x: apply(params, state, x)[0]), platforms=platforms)(spec)
    _write(path, bytes(exported.serialize()))


def export_onnx(
    model: nnx.Module, path: str | os.PathLike, *, input_shape: tuple[int, ...] | None = None, dtype: Any = None
) -> None:
    """Write the model in evaluation mode, batch norms folded, to an ONNX file, for any batch size; onnxruntime runs it.

    Needs the extra "onnx" (jax2onnx, onnxruntime). jax2onnx requires an older orbax-checkpoint than training does, so
    install that extra in a separate environment.

    Args:
      path: file to write, atomically.
      input_shape, dtype: see `export_model`.

    Raises:
      ModuleNotFoundError: jax2onnx is not installed; the message names the extra.
      ValueError: an input shape that the model cannot take.
    """
    to_onnx = need("jax2onnx", "onnx", "an ONNX file").to_onnx
    spec = _batched_spec(model, input_shape, dtype)
    params, state, apply = functional(fold_batch_norm(model))
    # The forms for a CPU are made of slices, maxima and products, which ONNX has; its pools know channels-first images only.
    with kernels.target("cpu"), kernels.use("xla"):
        program = to_onnx(lambda x: apply(params, state, x)[0], [spec])
    _write(path, program.SerializeToString())


def _write(path: str | os.PathLike, content: bytes) -> None:
    path = pathlib.Path(path)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".part", delete=False) as stream:
        try:
            stream.write(content)
            stream.close()
            put_in_place(stream.name, path)
        except BaseException:
            os.unlink(stream.name)
            raise
