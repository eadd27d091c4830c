"""Arguments in the forms that people give them in."""

from __future__ import annotations

import importlib
import operator
from typing import Any

import jax
import numpy as np
from flax import nnx


def as_rngs(rngs: Any) -> nnx.Rngs:
    """nnx.Rngs as they are, or new ones from a seed (any whole number, NumPy's too) or from a jax.random key.

    Raises:
      TypeError: it is none of these.
    """
    if isinstance(rngs, nnx.Rngs):
        return rngs
    if isinstance(rngs, jax.Array) and (jax.dtypes.issubdtype(rngs.dtype, jax.dtypes.prng_key) or rngs.dtype == np.uint32):
        return nnx.Rngs(rngs)
    try:
        return nnx.Rngs(operator.index(rngs))
    except TypeError:
        raise TypeError(f"rngs: {rngs!r} given, nnx.Rngs, a seed or a jax.random.key is needed") from None


def need(module: str, extra: str, what: str) -> Any:
    """A module of a package that only `what` needs.

    Raises:
      ModuleNotFoundError: it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        message = f'{what}, {package} is needed, which is not installed: pip install "jax-kernel-zoo[{extra}]"'
        raise ModuleNotFoundError(message, name=package) from None


def whole(name: str, value: Any, least: int = 1) -> int:
    """A whole number, NumPy's too.

    Raises:
      ValueError: it is none, or less than `least`.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise ValueError(f"{name}: {value!r} given, a whole number of at least {least} is needed")
    return number
