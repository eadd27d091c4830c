"""Data sets by name: `load("digits")`, `load("imagefolder:photos")`.

Each is a function of a module of this folder, ``load(path, **options) -> Dataset``; without `path` where it reads no files.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from experiments.data.augment import Changes
from experiments.data.base import Dataset
from experiments.errors import UserError, check_kind, nearest

# name -> module, function, what PATH is; the module is imported only when it is asked for.
DATA: dict[str, tuple[str, str, str | None]] = {
    "cifar10": ("experiments.data.cifar", "cifar10", "its folder or archive"),
    "cifar100": ("experiments.data.cifar", "cifar100", "its folder or archive"),
    "digits": ("experiments.data.digits", "load", None),
    "digitrows": ("experiments.data.digits", "load_rows", None),
    "imagefolder": ("experiments.data.imagefolder", "load", "its folder"),
    "mnist": ("experiments.data.mnist", "load", "the folder of its four files"),
    "pysource": ("experiments.data.pysource", "load", None),
    "pytokens": ("experiments.data.pytokens", "load", None),
    "tagging": ("experiments.data.tagging", "load", "a file"),
    "text": ("experiments.data.text", "load", "a file"),
}


def options_of(spec: str) -> dict[str, Any]:
    """Names and kinds of the options that the data set takes; none for an unknown name."""
    module, function, _ = DATA.get(spec.partition(":")[0], (None, None, None))
    if module is None or function is None:
        return {}
    parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters
    kinds = {name: parameter.annotation for name, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY}
    return kinds | dict.fromkeys(Changes.__annotations__ if "changes" in parameters else (), "float")


def load(spec: str, **options: Any) -> Dataset:
    """The data set that `spec`, "NAME" or "NAME:PATH", stands for.

    Args:
      options: passed on where the data set takes them (`size` of the images, ...).

    Raises:
      UserError: an unknown name, a path that is missing or holds something else, an option that it does not take.
    """
    name, _, path = spec.partition(":")
    if name not in DATA:
        raise UserError(nearest("data", name, DATA))
    module, function, needed = DATA[name]
    kinds = options_of(name)
    unknown = set(options) - set(kinds)
    if unknown:
        known = f"it takes {', '.join(kinds)}" if kinds else "it takes none"
        raise UserError(f"data: {name} takes no option {', '.join(sorted(unknown))}; {known}")
    for option, value in options.items():
        check_kind(f"data_options: {option}", value, kinds[option])
    if needed and not path:
        raise UserError(f"data: {name} needs {needed}: {name}:PATH")
    if path and not needed:
        raise UserError(f"data: {name} takes no path, {path!r} given")
    try:
        return getattr(importlib.import_module(module), function)(*([path] if path else []), **options)
    except (ValueError, OSError, MemoryError) as error:
        raise UserError(f"data: {error}") from error
