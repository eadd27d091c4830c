"""What was measured and checked on a kind of device, read from the user's cache or, failing that, from the files in the
package.

A file holds, for one kind of device: for each operator and key the fastest implementation or block sizes ("operators"), and
which implementations gave correct results there ("checked"). `python -m kernels tune` and `check` write it into the user's
cache folder, JAX_KERNEL_ZOO_CACHE or the system's folder for caches; kernels/tuned/ holds those in the package. A file that was
written on a device of the same name with another number of multiprocessors (a slice of it) is not read.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import tempfile
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from kernels.runtime.devices import Device

VARIABLE = "JAX_KERNEL_ZOO_CACHE"
SHIPPED = pathlib.Path(__file__).parents[1] / "tuned"
OPERATORS = pathlib.Path(__file__).parents[1]


def cache_folder() -> pathlib.Path:
    """The folder of a user's own measurements: JAX_KERNEL_ZOO_CACHE, else the system's folder for caches."""
    if chosen := os.environ.get(VARIABLE):
        return pathlib.Path(chosen).expanduser()
    try:
        import platformdirs
    except ModuleNotFoundError:  # from a checkout, with the packages that somebody else chose
        return pathlib.Path.home() / ".cache" / "jax-kernel-zoo"
    return platformdirs.user_cache_path("jax-kernel-zoo")


def path(kind: str) -> pathlib.Path:
    """The user's file of a kind of device."""
    return cache_folder() / f"{kind}.json"


def read(file: pathlib.Path, device: Device) -> dict[str, Any]:
    """A file's content; {} where there is none, or none of this device. If unreadable, {} and a warning."""
    try:
        content = json.loads(file.read_text())
        cores = content.get("cores")
        if not all(isinstance(content.get(part, {}), dict) for part in ("operators", "checked", "done")):
            raise TypeError("a part of it is no table")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        warnings.warn(
            f"{file}: not read ({type(error).__name__}: {error}); `python -m kernels tune` writes it anew", stacklevel=2
        )
        return {}
    return content if cores in (None, device.cores) else {}


@functools.cache
def _merged(device: Device, *folders: pathlib.Path) -> dict[str, dict[str, dict[str, Any]]]:
    found: dict[str, dict[str, dict[str, Any]]] = {"operators": {}, "checked": {}}
    for folder in folders:
        content = read(folder / f"{device.kind}.json", device)
        for part, operators in found.items():
            for name, entries in content.get(part, {}).items():
                operators.setdefault(name, {}).update(entries)
    return found


def forget() -> None:
    """Read the files again when they are next asked for. What jax.jit has compiled stays as it was chosen."""
    _merged.cache_clear()


def tuned(device: Device) -> Mapping[str, Mapping[str, dict[str, Any]]]:
    """{operator: {key: {"implementation": or "config": ...}}}, what the user measured before what is shipped."""
    return _merged(device, SHIPPED, cache_folder())["operators"]


def passed(device: Device, operator: str, implementation: str) -> bool:
    """Whether this implementation, as its source is now, gave right results on the device when it was last checked there."""
    found = _merged(device, SHIPPED, cache_folder())["checked"].get(operator, {}).get(implementation, {})
    return found.get("verdict") == "right" and found.get("source") == source(operator)


@functools.cache
def source(operator: str) -> str:
    """Digest of the files that an operator's kernels are built from, and the version of Triton."""
    folders = [operator, "runtime", *(["recurrent"] if operator in ("rnn", "lstm", "gru") else [])]
    digest = hashlib.sha256()
    for file in sorted(file for folder in folders for file in (OPERATORS / folder).glob("*.py")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    if importlib.util.find_spec("triton") is not None:
        digest.update(importlib.metadata.version("triton").encode())
    return digest.hexdigest()[:16]


def update(device: Device, change: Callable[[dict[str, Any]], None]) -> pathlib.Path:
    """Read the user's file of this device, let `change` add to its content, and write it, whole or not at all.

    Raises:
      OSError: the folder or file cannot be written.
    """
    file = path(device.kind)
    content = {"device": device.kind, "cores": device.cores, "operators": {}, "checked": {}} | read(file, device)
    content["cores"] = device.cores
    change(content)
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "w") as stream:
            json.dump(content, stream, indent=1, sort_keys=True)
        os.replace(temporary, file)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise
    forget()
    return file
