"""Sampling the next token from a language model's logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def sample(
    logits: jax.Array, key: jax.Array, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> jax.Array:
    """Token ids [...] drawn from logits [..., vocabulary].

    Args:
      key: a jax.random.key.
      temperature: divides the logits; 0 takes the most likely token.
      top_k: only the so many most likely tokens are drawn from.
      top_p: only the smallest set of most likely tokens whose probabilities reach this sum is drawn from (nucleus sampling,
        Holtzman et al. 2020); applied after the temperature and top_k.

    Raises:
      ValueError: a value outside its range.
    """
    if temperature < 0:
        raise ValueError(f"temperature: {temperature} given, 0 or more is needed")
    if top_k is not None and not 1 <= top_k <= logits.shape[-1]:
        raise ValueError(f"top_k: {top_k} given, 1 to {logits.shape[-1]} (the vocabulary) is needed")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p: {top_p} given, above 0 and at most 1 is needed")
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits.astype(jnp.float32) / temperature
    order = jnp.argsort(logits, -1, descending=True)
    ranked = jnp.take_along_axis(logits, order, -1)
    if top_k is not None:
        ranked = jnp.where(jnp.arange(ranked.shape[-1]) < top_k, ranked, -jnp.inf)
    if top_p is not None:
        probabilities = jax.nn.softmax(ranked, -1)
        mass_before = jnp.cumsum(probabilities, -1) - probabilities  # 0 for the first, which always stays
        ranked = jnp.where(mass_before < top_p, ranked, -jnp.inf)
    drawn = jax.random.categorical(key, ranked, -1)
    return jnp.take_along_axis(order, drawn[..., None], -1)[..., 0]
