"""The keywords that a model was built with, as JSON and back."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

DTYPES = ("float32", "bfloat16", "float16", "float64")
# What a file must not decide: where values come from, and what runs on this machine.
RESERVED = ("name", "weights", "rngs", "implementation")


def options_json(builder: Callable[..., Any], defaults: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """The options that differ from what `builder` takes by itself, as a JSON object.

    A value that JSON cannot hold stands as an object that names its type, which `options_from_json` refuses.

    Args:
      defaults: of what the builder's signature does not show.
    """
    shown = {name: p.default for name, p in inspect.signature(builder).parameters.items()}
    known = {"dtype": None, "param_dtype": jnp.float32} | dict(defaults) | shown
    plain = {name: _plain(name, value) for name, value in options.items()}
    if plain.get("dtype") == plain.get("param_dtype", "float32"):
        del plain["dtype"]  # as without
    return json.dumps({n: v for n, v in sorted(plain.items()) if n not in known or v != _plain(n, known[n])})


def options_from_json(text: str) -> dict[str, Any]:
    """Keywords for `zoo.create_model`.

    Raises:
      ValueError: a keyword that is none of a model's, or a value that a model cannot be built with.
    """
    options = json.loads(text)
    for name, value in options.items():
        if name in RESERVED:
            raise ValueError(f"options: {name} is given, which a file may not decide")
        if name in ("dtype", "param_dtype") and value not in (*DTYPES, None):
            raise ValueError(f"options: {name} is {value!r}, it is one of {', '.join(DTYPES)}")
        if isinstance(value, dict):
            raise ValueError(f"options: {name} is {value.get('type', 'an object')!r}, which no file can hold")
    return {n: jnp.dtype(v) if n.endswith("dtype") and v else _tuples(v) for n, v in options.items()}


def _plain(name: str, value: Any) -> Any:
    if name in ("dtype", "param_dtype") and value is not None:
        return jnp.dtype(value).name
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [_plain("", part) for part in value]
    if isinstance(value, set | frozenset):
        return sorted(value)
    return value if value is None or isinstance(value, bool | int | float | str) else {"type": type(value).__name__}


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
