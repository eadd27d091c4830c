"""What a result depends on: the files that a module imports, directly or indirectly, and their digest."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import pathlib
import re
from collections.abc import Iterable

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("kernels", "zoo", "experiments")
_NAME = re.compile(r"\w+(\.\w+)+")


def file_of(module: str) -> pathlib.Path | None:
    """The file of a module of this repository; None where there is none."""
    path = ROOT.joinpath(*module.split("."))
    return next((found for found in (path.with_suffix(".py"), path / "__init__.py") if found.exists()), None)


class _Running(ast.NodeTransformer):
    """Takes out what stands under `if TYPE_CHECKING`."""

    def visit_If(self, node: ast.If) -> ast.If | None:
        return None if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else node


@functools.cache
def imports(module: str) -> set[str]:
    """The modules of this repository that a module imports, in its functions too, or names in full in a string.

    What it imports for its annotations alone, under `if TYPE_CHECKING`, does not count: nothing of it runs.
    """
    path, names = file_of(module), []
    for node in ast.walk(_Running().visit(ast.parse(path.read_text() if path else ""))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _NAME.fullmatch(node.value):
            names.append(node.value)
    ours = [name for name in names if name.partition(".")[0] in PACKAGES]
    found = {name if file_of(name) else name.rpartition(".")[0] for name in ours}
    return {name for name in found if file_of(name)}


def closure(*modules: str) -> set[str]:
    """The modules themselves and all that they import, directly or not."""
    found, waiting = set(), list(modules)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += imports(module)
    return found


@functools.cache
def digest(*modules: str, data: Iterable[pathlib.Path] = (), tuned: bool = False) -> str:
    """Of the modules, of all that they import, and of `data` files; with `tuned` of what kernels/tuned/ chooses as well.

    The times that stand in kernels/tuned/ do not count: tuning again with the same outcome changes nothing.
    """
    paths = {path for module in closure(*modules) if (path := file_of(module)) is not None}
    total = hashlib.sha256()
    for path in sorted({*paths, *data}):
        total.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    for path in sorted((ROOT / "kernels" / "tuned").glob("*.json")) if tuned else ():
        chosen = {
            operator: {key: [entry.get("implementation"), entry.get("config")] for key, entry in entries.items()}
            for operator, entries in json.loads(path.read_text())["operators"].items()
        }
        total.update(path.name.encode() + json.dumps(chosen, sort_keys=True).encode())
    return total.hexdigest()[:16]
