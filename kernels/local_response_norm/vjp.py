"""local_response_norm around its hand-written kernels: derivative, vmap and meshes. The only residual is x."""

from __future__ import annotations

import functools
from typing import Any

import jax

from kernels.local_response_norm import triton, xla
from kernels.runtime.batching import over_batch
from kernels.runtime.derivatives import differentiable


def local_response_norm(x: jax.Array, size: int, alpha: float, beta: float, k: float, implementation: str) -> jax.Array:
    static: dict[str, Any] = {"size": size, "alpha": alpha, "beta": beta, "k": k}
    launched = static | {"implementation": implementation}

    def forward(x):
        return over_batch(functools.partial(triton.forward, **launched))(x)[0], x

    def backward(x, dy):
        return over_batch(functools.partial(triton.backward, **launched))(x, dy)[:1]

    return differentiable(functools.partial(xla.local_response_norm, **static), forward, backward)(x)
