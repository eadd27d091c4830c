"""Functions that XLA compiles apart from the program around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of arrays as a computation of its own, which is never fused with what is before and after it.

    A CPU's fusion computes what it reads anew for each element that reads it, which pays off less often than XLA assumes.
    `jax.lax.optimization_barrier` does not help: on a CPU XLA removes it before it fuses.

    Outside of jit each result of `apart` is compiled by itself: keep it, as with `jax.jit`.
    """
    from jax.experimental.xla_metadata import set_xla_metadata

    @jax.jit
    def inside(*args: Any) -> Any:
        with set_xla_metadata(inlineable=None):  # of the calls within, none is asked for
            return function(*args)

    def call(*args: Any) -> Any:
        with set_xla_metadata(inlineable="false"):
            return inside(*args)

    return call
