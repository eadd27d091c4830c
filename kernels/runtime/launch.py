"""Launches a @triton.jit kernel inside a JAX program: compiled by jax-triton for the GPU, or on the CPU, where its source is
interpreted or its PTX executed.

Imported when a kernel is built, never by `import kernels`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.xla_metadata import set_xla_metadata

from kernels.runtime import devices, dispatch, launches, meshes
from kernels.runtime.launches import Launch, recording, unrecorded, usable_cores

__all__ = ["Launch", "launch", "like", "recording", "unrecorded", "usable_cores"]


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
      extra_bytes: bytes that the kernel reads from device memory beyond each of its operands once: an attribute of the
        operation in the compiled program, for `kernels.verification.traffic`.
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
    launches.note(call)
    if implementation == "triton":
        if check is not None:
            check(call)
        results = _compiled(call, inputs, outputs, extra_bytes)
    elif implementation == "interpret":
        from kernels.verification import interpret

        results = _on_host(functools.partial(interpret.launch, call), inputs, outputs)
    else:
        from kernels.verification import ptx

        here = devices.device()
        capability = here.compute_capability if here.platform == "cuda" else devices.BASELINE
        results = _on_host(functools.partial(ptx.launch, call, compute_capability=capability), inputs, outputs)
    varying = meshes.varying_axes(*inputs)  # inside shard_map: what no operation of JAX's makes, it must be told
    return [meshes.vary(result, varying) for result in results]


def _compiled(
    call: Launch,
    inputs: Sequence[jax.Array],
    outputs: Sequence[jax.ShapeDtypeStruct],
    extra_bytes: int,
) -> list[jax.Array]:
    import jax_triton

    major, minor = devices.device().compute_capability
    with jax.named_scope(call.kernel.__name__), set_xla_metadata(extra_bytes=extra_bytes):
        return jax_triton.triton_call(
            *inputs,
            kernel=call.kernel,
            out_shape=list(outputs),
            grid=call.grid,
            num_warps=call.num_warps,
            num_stages=call.num_stages,
            compute_capability=10 * major + minor,
            zeroed_outputs=call.zeroed_outputs,
            input_output_aliases=dict(call.in_place),
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
