"""What stands in torch's files beside the tensors: settings, counters, paths, sizes. Nothing of it is run."""

from __future__ import annotations

import sys
from typing import Any

# Names of Python's own library that checkpoints refer to. Any other one, such as os.system, is there to run code.
_HARMLESS: dict[str, tuple[str, ...] | None] = {  # None: every name
    "_codecs": ("encode",),
    "argparse": ("Namespace",),
    "builtins": (
        "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object", "range", "set",
        "slice", "str", "tuple", "type",
    ),
    "collections": None,
    "copyreg": ("_reconstructor", "__newobj__", "__newobj_ex__"),
    "datetime": None,
    "decimal": ("Decimal",),
    "enum": None,
    "fractions": ("Fraction",),
    "functools": ("partial",),
    "itertools": ("count",),
    "pathlib": ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"),
    "types": ("SimpleNamespace",),
    "typing": None,
    "uuid": ("UUID",),
}  # fmt: skip
_OLD_NAMES = {"__builtin__": "builtins", "copy_reg": "copyreg", "pathlib._local": "pathlib"}


class Foreign:
    """Stands for an object that is neither a tensor nor a plain value: it takes what a pickle does to it, and does nothing.

    Attributes:
      origin: what the file calls its class, such as "argparse.Namespace".
    """

    origin = ""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> Foreign:
        return Foreign()

    def __setstate__(self, _: Any) -> None:
        pass

    def __setitem__(self, _: Any, __: Any) -> None:
        pass

    append = extend = add = __setstate__


def stand_in(module: str, name: str) -> type[Foreign] | None:
    """A class that stands for one that the file names; None for a name of Python's library that no weights have a need of."""
    module = _OLD_NAMES.get(module, module)
    if module.partition(".")[0] in sys.stdlib_module_names and module != "__main__":
        names = _HARMLESS.get(module, ())
        if names is not None and name not in names:
            return None
    return type("Foreign", (Foreign,), {"origin": f"{module}.{name}"})
