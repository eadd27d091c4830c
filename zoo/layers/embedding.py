"""A vector for each token id."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from zoo.weights.names import TorchTensor


class Embedding(nnx.Module):
    """Integer ids [...] below `num_embeddings` to [..., features]; initial values are normal, as torch's.

    An id outside the range gives NaN, so that it cannot pass for a token.
    """

    def __init__(
        self,
        num_embeddings: int,
        features: int,
        *,
        dtype: jnp.dtype | type | None = None,
        param_dtype: jnp.dtype | type = jnp.float32,
        rngs: nnx.Rngs,
    ):
        for name, size in (("num_embeddings", num_embeddings), ("features", features)):
            if size < 1:
                raise ValueError(f"{name}: {size} given, at least 1 is needed")
        self.table = nnx.Param(jax.random.normal(rngs.params(), (num_embeddings, features), param_dtype))
        self.num_embeddings, self.dtype = num_embeddings, dtype

    def __call__(self, ids: jax.Array) -> jax.Array:
        if not jnp.issubdtype(ids.dtype, jnp.integer):
            raise TypeError(f"x: dtype {ids.dtype} given, integer ids are needed")
        table = self.table[...]
        return jnp.take(table if self.dtype is None else table.astype(self.dtype), ids, axis=0, mode="fill")

    def torch_tensors(self) -> dict[str, TorchTensor]:
        return {"weight": TorchTensor(self.table)}
