"""Data sets by name: `load("digits")`, `load("imagefolder:photos")`, `load("mymodule:myfunction")`.

Each is a function, ``load(path, **options) -> Dataset``; without `path` where it reads no files.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from experiments import own
from experiments.data.augment import Changes
from experiments.data.base import Dataset
from experiments.errors import KINDS, UserError, check_kind, nearest
from zoo.preprocessing import Preprocessing

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


def is_own(spec: str) -> bool:
    """Whether `spec` names a function of one's own: MODULE:FUNCTION, where no data set here has the module's name."""
    return spec.partition(":")[0] not in DATA and own.is_own(spec)


def _parameters(spec: str) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of the function that makes the data set; none for an unknown name."""
    module, function, _ = DATA.get(spec.partition(":")[0], (None, None, None))
    if module is not None and function is not None:
        found = getattr(importlib.import_module(module), function)
    elif is_own(spec):
        found = own.function_of("data", _function(spec))
    else:
        return {}
    parameters = inspect.signature(found).parameters
    return {name: p for name, p in parameters.items() if p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD)}


def options_of(spec: str) -> dict[str, Any]:
    """Names and kinds of the options that the data set takes; none for an unknown name."""
    parameters = _parameters(spec)
    kinds = {n: p.annotation for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY and n != "preprocessing"}
    return kinds | dict.fromkeys(Changes.__annotations__ if "changes" in parameters else (), "float")


def _function(spec: str) -> str:
    """MODULE:FUNCTION of MODULE:FUNCTION:PATH."""
    return ":".join(spec.split(":")[:2])


def load(spec: str, *, preprocessing: Preprocessing | None = None, **options: Any) -> Dataset:
    """The data set that `spec`, "NAME", "NAME:PATH" or "MODULE:FUNCTION[:PATH]", stands for.

    Args:
      preprocessing: how images are made ready, for a data set that takes it (folders of images); None for its own way.
      options: passed on where the data set takes them (`size` of the images, ...).

    Raises:
      UserError: an unknown name, a path that is missing or holds something else, an option that it does not take.
    """
    name, _, path = spec.partition(":")
    if is_own(spec):
        return _load_own(spec, options)
    if name not in DATA:
        raise UserError(f"{nearest('data', name, DATA)}; a function of one's own is MODULE:FUNCTION")
    module, function, needed = DATA[name]
    _check_options(spec, name, options)
    if needed and not path:
        raise UserError(f"data: {name} needs {needed}: {name}:PATH")
    if path and not needed:
        raise UserError(f"data: {name} takes no path, {path!r} given")
    if preprocessing is not None and "preprocessing" in _parameters(spec):
        options["preprocessing"] = preprocessing
    try:
        return getattr(importlib.import_module(module), function)(*([path] if path else []), **options)
    except (ValueError, OSError, MemoryError) as error:
        raise UserError(f"data: {error}") from error


def _check_options(spec: str, name: str, options: dict[str, Any]) -> None:
    kinds = options_of(spec)
    unknown = set(options) - set(kinds)
    if unknown:
        known = f"it takes {', '.join(kinds)}" if kinds else "it takes none"
        raise UserError(f"data: {name} takes no option {', '.join(sorted(unknown))}; {known}")
    for option, value in options.items():
        kind = getattr(kinds[option], "__name__", kinds[option])  # an annotation is text where it is not evaluated
        if isinstance(kind, str) and all(part in KINDS for part in kind.split(" | ")):
            check_kind(f"data_options: {option}", value, kind)


def _load_own(spec: str, options: dict[str, Any]) -> Dataset:
    name = _function(spec)
    path = spec.removeprefix(name).removeprefix(":")
    function = own.function_of("data", name)
    _check_options(spec, name, options)
    try:
        found = function(*([path] if path else []), **options)
    except (TypeError, ValueError, OSError, MemoryError) as error:
        raise UserError(f"data: {name}: {error}") from error
    if not isinstance(found, Dataset):
        raise UserError(f"data: {name} returns {type(found).__name__}, a Dataset of experiments.data is needed")
    return found
