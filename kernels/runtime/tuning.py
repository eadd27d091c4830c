"""Looks up block sizes that `python -m kernels tune` or `kernels.autotune` measured."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax

from kernels.runtime import devices, measured

# Known to jax.jit: a function traced with one candidate is traced anew with the next.
_candidate = jax.make_user_context(None)
_recorders: list[set[tuple[str, str]]] = []


def tuned_config(operator: str, key: str) -> dict[str, Any] | None:
    """The measured configuration of an operator on the device at hand, if there is one under this key."""
    if _candidate.value is not None and _candidate.value[0] == operator:
        return dict(_candidate.value[1])
    for record in _recorders:
        record.add((operator, key))
    entry = measured.tuned(devices.device()).get(operator, {}).get(key, {})
    return entry.get("config")


@contextlib.contextmanager
def candidate(operator: str, config: dict[str, Any]) -> Iterator[None]:
    """Every launch of the operator traced inside the block takes this configuration: to measure or check it."""
    with _candidate((operator, tuple(sorted(config.items())))):
        yield


@contextlib.contextmanager
def keys_asked() -> Iterator[set[tuple[str, str]]]:
    """What launches traced inside the block look up: operators ("linear_act.pallas" for a second kernel of one) and keys."""
    record: set[tuple[str, str]] = set()
    _recorders.append(record)
    try:
        yield record
    finally:
        _recorders.remove(record)
