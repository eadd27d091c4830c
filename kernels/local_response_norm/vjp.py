"""local_response_norm around its hand-written kernels: derivative, batches and meshes. Kept for the backward pass: x."""

from __future__ import annotations

import functools

import jax

from kernels.local_response_norm import triton
from kernels.runtime.batching import over_batch


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4, 5))
def local_response_norm(x: jax.Array, size: int, alpha: float, beta: float, k: float, interpret: bool) -> jax.Array:
    return _forward(x, size, alpha, beta, k, interpret)[0]


def _forward(x, size, alpha, beta, k, interpret):
    run = functools.partial(triton.forward, size=size, alpha=alpha, beta=beta, k=k, interpret=interpret)
    return over_batch(run)(x)[0], x


def _backward(size, alpha, beta, k, interpret, x, dy):
    run = functools.partial(triton.backward, size=size, alpha=alpha, beta=beta, k=k, interpret=interpret)
    return (over_batch(run)(x, dy)[0],)


local_response_norm.defvjp(_forward, _backward)
