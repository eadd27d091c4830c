"""Files that are there whole or not at all, after a loss of power too."""

from __future__ import annotations

import contextlib
import os
import pathlib


def put_in_place(part: str | os.PathLike, path: str | os.PathLike) -> None:
    """Give the finished file `part` the name `path` in the same folder: first its content, then the name is on the disk."""
    with open(part, "rb+") as stream:
        os.fsync(stream.fileno())
    os.replace(part, path)
    with contextlib.suppress(OSError):  # some file systems know no such thing
        folder = os.open(pathlib.Path(path).absolute().parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
