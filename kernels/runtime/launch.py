"""Launches a @triton.jit kernel inside a JAX program: compiled by jax-triton for the GPU, or on the CPU, where its source is
interpreted or its PTX executed.

Imported when a kernel is built, never by `import kernels`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernels.runtime import devices, dispatch, meshes

# A multiplication and an addition become one instruction, as in every version of Triton so far; from 3.9 on it asks to be told.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

RESERVED = 4  # multiprocessors that a grid with a barrier across it leaves to whatever else runs


def usable_cores(cores: int) -> int:
    """Of a device's multiprocessors, those that a grid with a barrier across it may take: one at least."""
    return max(1, cores - RESERVED)


@dataclasses.dataclass(frozen=True)
class Launch:
    """One launch as it was traced.

    Attributes:
      dtypes, shapes: of the arrays, inputs before outputs.
      inputs: how many of the arrays are inputs.
      zeroed_outputs, in_place, cooperative: as `launch` was given them.
    """

    kernel: Any
    dtypes: tuple[Any, ...]
    grid: tuple[int, ...]
    num_warps: int
    num_stages: int
    constants: tuple[tuple[str, Any], ...]
    shapes: tuple[tuple[int, ...], ...] = dataclasses.field(default=(), compare=False)
    inputs: int = dataclasses.field(default=0, compare=False)
    zeroed_outputs: tuple[int, ...] = dataclasses.field(default=(), compare=False)
    in_place: tuple[tuple[int, int], ...] = dataclasses.field(default=(), compare=False)
    cooperative: bool = dataclasses.field(default=False, compare=False)


_recorders: list[list[Launch]] = []


@contextlib.contextmanager
def recording() -> Iterator[list[Launch]]:
    """Lists the launches that are traced inside the block."""
    record: list[Launch] = []
    _recorders.append(record)
    try:
        yield record
    finally:
        _recorders.remove(record)


@contextlib.contextmanager
def unrecorded() -> Iterator[None]:
    """Launches traced inside the block are a trial, and stand in no list."""
    saved = list(_recorders)
    _recorders.clear()
    try:
        yield
    finally:
        _recorders.extend(saved)


def launch(
    kernel: Any,
    *inputs: jax.Array,
    outputs: Sequence[jax.ShapeDtypeStruct],
    grid: tuple[int, ...],
    implementation: str,
    num_warps: int = 4,
    num_stages: int = 3,
    zeroed_outputs: tuple[int, ...] = (),
    in_place: tuple[tuple[int, int], ...] = (),
    cooperative: bool = False,
    extra_bytes: int = 0,
    check: Callable[[Launch], None] | None = None,
    **constants: Any,
) -> list[jax.Array]:
    """Run `kernel` over `grid`.

    The kernel's parameters are, in this order, pointers to the inputs (contiguous, row-major), pointers to the outputs
    (uninitialised but for those whose index `zeroed_outputs` names), and the constants, all tl.constexpr.

    Args:
      implementation: "triton", "interpret" or "ptx"; see `kernels.runtime.dispatch`.
      in_place: pairs of an input and an output that may be the same memory: the kernel reads an element before it writes it.
      cooperative: the kernel has a barrier across the grid, so that all its programs must run at the same time; the caller
        keeps the grid within what the device holds.
      extra_bytes: bytes that the kernel reads from device memory beyond each of its operands once. They stand in the name of
        the operation, where whoever counts a program's traffic finds them.
      check: called with a launch that is to be compiled for the device, before it is; it raises what keeps it from running.

    Raises:
      ValueError: the implementation is none of these.
    """
    if implementation not in dispatch.TRITON:
        raise ValueError(f"implementation: {implementation!r} is none of {', '.join(dispatch.TRITON)}")
    dtypes = (*(a.dtype for a in inputs), *(o.dtype for o in outputs))
    shapes = (*(a.shape for a in inputs), *(o.shape for o in outputs))
    given = tuple(sorted(constants.items()))
    options = (len(inputs), zeroed_outputs, in_place, cooperative)
    call = Launch(kernel, dtypes, grid, num_warps, num_stages, given, shapes, *options)
    for record in _recorders:
        record.append(call)
    made = [(o.shape, np.dtype(o.dtype)) for o in outputs]
    if implementation == "triton":
        if check is not None:
            check(call)
        results = _compiled(call, inputs, outputs, zeroed_outputs, in_place, extra_bytes)
    elif implementation == "interpret":
        from kernels.verification import interpret

        run = lambda arrays: interpret.launch(kernel, grid, arrays, made, zeroed_outputs, constants, cooperative)
        results = _on_host(run, inputs, outputs)
    else:
        from kernels.verification import ptx

        here = devices.device()
        execute = functools.partial(
            ptx.launch,
            call,
            outputs=made,
            zeroed_outputs=zeroed_outputs,
            in_place=in_place,
            cooperative=cooperative,
            compute_capability=here.compute_capability if here.platform == "cuda" else devices.BASELINE,
        )
        results = _on_host(execute, inputs, outputs)
    varying = meshes.varying_axes(*inputs)  # inside shard_map: what no operation of JAX's makes, it must be told
    return [meshes.vary(result, varying) for result in results]


def _compiled(
    call: Launch,
    inputs: Sequence[jax.Array],
    outputs: Sequence[jax.ShapeDtypeStruct],
    zeroed_outputs: tuple[int, ...],
    in_place: tuple[tuple[int, int], ...],
    extra_bytes: int,
) -> list[jax.Array]:
    import jax_triton

    major, minor = devices.device().compute_capability
    with jax.named_scope(f"{call.kernel.__name__}:{extra_bytes}"):
        return jax_triton.triton_call(
            *inputs,
            kernel=call.kernel,
            out_shape=list(outputs),
            grid=call.grid,
            num_warps=call.num_warps,
            num_stages=call.num_stages,
            compute_capability=10 * major + minor,
            zeroed_outputs=zeroed_outputs,
            input_output_aliases=dict(in_place),
            **dict(call.constants),
        )


def _on_host(
    run: Callable[[list[np.ndarray]], list[np.ndarray]], inputs: Sequence[jax.Array], outputs: Sequence[jax.ShapeDtypeStruct]
) -> list[jax.Array]:
    return jax.pure_callback(
        lambda *arrays: run([np.asarray(a) for a in arrays]), list(outputs), *inputs, vmap_method="sequential"
    )


def like(x: jax.Array, shape: tuple[int, ...] | None = None, dtype: Any = None) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape if shape is None else shape, jnp.dtype(dtype or x.dtype))
