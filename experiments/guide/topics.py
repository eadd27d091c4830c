"""The topics by name."""

from __future__ import annotations

import importlib

from experiments.errors import UserError
from experiments.guide.topic import Topic

NAMES = (
    "threads",
    "memory_hierarchy",
    "coalescing",
    "bank_conflicts",
    "constant_memory",
    "occupancy",
    "registers",
    "fusion",
    "block_size",
    "divergence",
    "unrolling",
    "launches",
    "asynchronous_execution",
    "transfer_overlap",
    "memory_use",
    "precision",
)


def load(name: str) -> Topic:
    """A topic by its name, dashes or underscores.

    Raises:
      UserError: there is none of this name.
    """
    plain = name.replace("-", "_")
    if plain not in NAMES:
        raise UserError(f"topic: {name!r} given, it is one of {', '.join(NAMES)}; or list, or all")
    try:
        return importlib.import_module(f"experiments.guide.{plain}").TOPIC
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise UserError("guide: the package triton is needed for its kernels; pip install triton") from error
