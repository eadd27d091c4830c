"""Data sets by name: `load("digits")`, `load("imagefolder:photos")`.

Each is a module of this folder with a function ``load(path, **options) -> Dataset``.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from experiments.data.base import Dataset
from experiments.errors import UserError, nearest

# name -> module; a name is here once, and its module is imported only when it is asked for.
MODULES = {
    "cifar10": "experiments.data.cifar10",
    "cifar100": "experiments.data.cifar100",
    "digits": "experiments.data.digits",
    "digitrows": "experiments.data.digitrows",
    "imagefolder": "experiments.data.imagefolder",
    "mnist": "experiments.data.mnist",
    "pysource": "experiments.data.pysource",
    "pytokens": "experiments.data.pytokens",
    "tagging": "experiments.data.tagging",
    "text": "experiments.data.text",
}


def load(spec: str, **options: Any) -> Dataset:
    """The data set that `spec`, "NAME" or "NAME:PATH", stands for.

    Args:
      options: passed on where the data set takes them (`size` of the images, ...).

    Raises:
      UserError: an unknown name, a path that is missing or holds something else, an option that it does not take.
    """
    name, _, path = spec.partition(":")
    if name not in MODULES:
        raise UserError(nearest("data", name, MODULES))
    load_ = importlib.import_module(MODULES[name]).load
    unknown = set(options) - set(inspect.signature(load_).parameters)
    if unknown:
        raise UserError(f"data: {name} takes no option {', '.join(sorted(unknown))}")
    try:
        return load_(path or None, **options)
    except (ValueError, OSError) as error:
        raise UserError(f"data: {error}") from error
