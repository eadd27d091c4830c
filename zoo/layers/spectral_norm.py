"""Spectral normalization of a layer's kernel."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


class SpectralNorm(nnx.Module):
    """A layer whose kernel is divided by its largest singular value (Miyato, Kataoka, Koyama, Yoshida 2018).

    The kernel is seen as a matrix [everything else, out]; its largest singular value is tracked by one power iteration per
    call in training mode, as torch.nn.utils.spectral_norm does.

    Args:
      layer: any layer with `kernel` as [..., out].
    """

    def __init__(self, layer: nnx.Module, *, epsilon: float = 1e-12, rngs: nnx.Rngs):
        self.layer = layer
        kernel = layer.kernel[...]  # type: ignore[attr-defined]
        self.u = nnx.BatchStat(_unit(jax.random.normal(rngs.params(), (kernel.shape[-1],), kernel.dtype), epsilon))
        self.epsilon, self.use_running_average = epsilon, False

    def set_view(self, use_running_average: bool | None = None) -> None:
        """Called by nnx.view."""
        if use_running_average is not None:
            self.use_running_average = use_running_average

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel: Any = self.layer.kernel[...]  # type: ignore[attr-defined]
        matrix = kernel.reshape(-1, kernel.shape[-1])
        fixed = jax.lax.stop_gradient(matrix)
        u = self.u[...]
        v = _unit(fixed @ u, self.epsilon)
        if not self.use_running_average:
            u = _unit(fixed.T @ v, self.epsilon)
            self.u[...] = u
        sigma = v @ (matrix @ u)
        graph, state = nnx.split(self.layer)
        state["kernel"] = nnx.Param(kernel / sigma)
        return nnx.merge(graph, state)(x)  # type: ignore[operator]


def _unit(vector: jax.Array, epsilon: float) -> jax.Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector), epsilon)
