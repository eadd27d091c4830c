"""What a case of the comparison is: inputs, the work, its floor, and the same work by peers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kernels


@dataclasses.dataclass(frozen=True)
class Array:
    """An input: its shape, and how it is drawn.

    Attributes:
      scale: of normal values.
      rectified: negative values become zero, as after a ReLU: zeros tie.
      below: whole numbers from zero to this, instead of normal values.
      float32: never cast to the precision of the comparison, as norms' parameters are in the zoo.
    """

    shape: tuple[int, ...]
    scale: float = 1.0
    rectified: bool = False
    below: int | None = None
    float32: bool = False

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        if self.below is not None:
            return rng.integers(0, self.below, self.shape).astype(np.int32)
        values = rng.standard_normal(self.shape, np.float32) * np.float32(self.scale)
        return np.maximum(values, 0) if self.rectified else values

    def dtype(self, precision: Any) -> jnp.dtype:
        """The dtype in which a contender gets it."""
        if self.below is not None:
            return jnp.dtype(jnp.int32)
        return jnp.dtype(jnp.float32 if self.float32 else precision)


Leaves = list[np.ndarray]


def images_first(tensors: list[Any]) -> list[Any]:
    return [t.permute(0, 3, 1, 2) if t.dim() == 4 else t for t in tensors]


def images_last(leaves: Leaves) -> Leaves:
    return [a.transpose(0, 2, 3, 1) if a.ndim == 4 else a for a in leaves]


@dataclasses.dataclass(frozen=True)
class TorchPeer:
    """The same work in torch.

    Attributes:
      forward: given torch.nn.functional, a function of `prepare`'s tensors; differentiated by the case's `argnums`, or by all
        its arguments where `every` is set.
      prepare: from tensors like the case's inputs to what torch likes best, before the clock starts: images channels last.
      restore: from its outputs to the order and layout of the JAX contenders'.
    """

    forward: Callable[[Any], Callable[..., Any]]
    prepare: Callable[[list[Any]], list[Any]] = images_first
    restore: Callable[[Leaves], Leaves] = images_last
    every: bool = False


@dataclasses.dataclass(frozen=True)
class Case:
    """One operator at one shape, forward or forward and backward.

    Attributes:
      operator: its public name in kernels/.
      where: which shape it is.
      inputs: of `forward`.
      forward: the work on JAX arrays; the implementation is chosen around it.
      bytes: the least that any version must move through memory, with so many bytes a value.
      flops: the operations (additions, multiplications, comparisons) that any version must do; about, where they do not matter.
      argnums: the inputs by which it is differentiated; none for the forward pass alone.
      torch, flax: peers. flax is a function of the same arrays, through flax.linen.
      precision: in which the case's figures were published; None for that of the run.
    """

    operator: str
    where: str
    inputs: tuple[Array, ...]
    forward: Callable[..., jax.Array]
    bytes: Callable[[int], float]
    flops: float
    argnums: tuple[int, ...] = ()
    torch: TorchPeer | None = None
    flax: Callable[..., jax.Array] | None = None
    precision: str | None = None

    @property
    def name(self) -> str:
        return f"{self.operator} {self.where}, {'forward + backward' if self.argnums else 'forward'}"

    def arrays(self) -> tuple[Array, ...]:
        """What a contender is called with: the inputs and, where it is differentiated, the gradient of the output."""
        if not self.argnums:
            return self.inputs
        shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype(jnp.float32)) for a in self.inputs]
        with kernels.use("xla"):
            output = jax.eval_shape(self.forward, *shapes)
        return *self.inputs, Array(output.shape)

    def draw(self, rng: np.random.Generator) -> Leaves:
        return [a.draw(rng) for a in self.arrays()]


def differentiated(forward: Callable[..., jax.Array], argnums: Sequence[int]) -> Callable[..., Any]:
    """`forward` with its gradients, as one function of its inputs and the gradient of its output; without `argnums` itself."""
    if not argnums:
        return forward

    def both(*args: jax.Array) -> tuple[jax.Array, ...]:
        *inputs, dy = args

        def chosen(*values: jax.Array) -> jax.Array:
            full = list(inputs)
            for index, value in zip(argnums, values, strict=True):
                full[index] = value
            return forward(*full)

        y, pullback = jax.vjp(chosen, *(inputs[index] for index in argnums))
        return y, *pullback(dy.astype(y.dtype))

    return both
