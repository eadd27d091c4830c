"""Looks up block sizes that experiments/tune.py measured."""

from __future__ import annotations

from typing import Any

from kernels import dispatch


def tuned_config(operator: str, key: str) -> dict[str, Any] | None:
    """The measured configuration of an operator on the device at hand, if there is one under this key."""
    entry = dispatch.tuned(dispatch.device().kind).get(operator, {}).get(key, {})
    return entry.get("config")
