"""The Python standard library's own source files, as characters: real text that is there wherever Python is.

Included are the modules that every CPython of a version ships. Excluded are its tests, what distributions package separately or
omit (tkinter, idlelib, turtledemo, lib2to3, distutils, ensurepip, pydoc_data), the generated tables in encodings, and what is
written for one machine (_sysconfigdata). One file in sixteen, chosen by a hash of its name, is test data.
"""

from __future__ import annotations

import hashlib
import pathlib
import sys
import sysconfig
import tokenize

import numpy as np

from experiments.data.base import Dataset
from experiments.data.text import UNKNOWN, encode, language_data

VOCABULARY = (UNKNOWN, "\t", "\n", *map(chr, range(32, 127)))
LEFT_OUT = {
    *("distutils", "encodings", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "tkinter", "turtledemo"),
    *("dist-packages", "site-packages", "test", "tests"),
}
TEST = 16  # one file in so many


def files(library: pathlib.Path | None = None) -> list[pathlib.Path]:
    """The files that are in, sorted by name, relative to the library's folder."""
    library = library or pathlib.Path(sysconfig.get_path("stdlib"))
    found = []
    for path in library.rglob("*.py"):
        relative = path.relative_to(library)
        module = relative.parts[0].removesuffix(".py")
        if module in sys.stdlib_module_names and LEFT_OUT.isdisjoint(relative.parts) and "_sysconfigdata" not in relative.name:
            found.append(relative)
    return sorted(found, key=lambda p: p.as_posix())


def in_test(relative: pathlib.Path) -> bool:
    """Whether a file is in the test part; by its name alone, so that it is so for every version of Python."""
    return int(hashlib.sha256(relative.as_posix().encode()).hexdigest(), 16) % TEST == 0


def texts() -> tuple[list[str], list[str]]:
    """Training and test texts, one per file."""
    library = pathlib.Path(sysconfig.get_path("stdlib"))
    train: list[str] = []
    test: list[str] = []
    for relative in files(library):
        with tokenize.open(library / relative) as file:  # in the encoding that the file declares
            (test if in_test(relative) else train).append(file.read())
    if not train or not test:
        raise ValueError(f"{library} holds no Python sources: this Python came without its library's source files")
    return train, test


def load(*, length: int = 128) -> Dataset:
    """About seven million characters to train on and half a million to test with; the vocabulary is printable ASCII.

    Args:
      length: characters per step of truncated back-propagation.
    """
    train, test = texts()
    encoded = [encode(text, VOCABULARY).astype(np.uint8) for text in train]
    return language_data("pysource", encoded, encode("".join(test), VOCABULARY).astype(np.uint8), VOCABULARY, length)
