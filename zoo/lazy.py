"""Names of a package that are imported when they are first asked for (PEP 562), so that the package itself is imported fast."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def attach(package: str, homes: Mapping[str, Sequence[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package, whose modules are found as its attributes as well.

    Args:
      package: its `__name__`.
      homes: full names of modules, and which of the package's names each defines. None may be that of a module of the package:
        importing that module would put it in the name's place.
    """
    home_of = {name: home for home, names in homes.items() for name in names}
    module = sys.modules[package]

    def getattribute(name: str) -> Any:
        if name in home_of:
            value = getattr(importlib.import_module(home_of[name]), name)
            setattr(module, name, value)  # and this function is not asked again
            return value
        if not name.startswith("_") and importlib.util.find_spec(f"{package}.{name}"):
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def listed() -> list[str]:
        modules = {found.name for found in pkgutil.iter_modules(module.__path__)}
        return sorted({*vars(module), *home_of, *modules} - {"__main__", "TYPE_CHECKING"})

    return getattribute, listed
