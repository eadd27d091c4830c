"""Another distribution on the market also installs the import package `kernels`: what to say where it lies over ours.

Imports nothing but the standard library where all is well, so that it can be asked before anything else of the zoo is imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import pathlib

MARK = 'DISTRIBUTION = "jax-kernel-zoo"'  # a line of kernels/__init__.py
REMEDY = (
    "both cannot be installed in one environment: `pip uninstall kernels`, then "
    "`pip install --force-reinstall --no-deps jax-kernel-zoo`, or an environment for each"
)


def check() -> None:
    """Raise ImportError where `import kernels` would not import the kernels of this project.

    Where it would, and the other distribution lies beneath, kernels is imported at once, which warns of it.
    """
    spec = importlib.util.find_spec("kernels")
    origin = spec.origin if spec else None
    if origin is None:
        raise ImportError(f"zoo: its package kernels is missing; {REMEDY}")
    if MARK not in pathlib.Path(origin).read_text("utf-8", errors="replace"):
        raise ImportError(f"zoo: {origin} belongs to another distribution that is also called kernels; {REMEDY}")
    if any(pathlib.Path(origin).parents[1].glob("kernels-*.dist-info")):
        importlib.import_module("kernels")
