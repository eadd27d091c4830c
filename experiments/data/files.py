"""Compressed files and archives from strangers, read with a bound on what they unpack to; nothing is written to disk."""

from __future__ import annotations

import bz2
import gzip
import lzma
import pathlib
import tarfile
import zlib
from collections.abc import Callable, Collection
from typing import Any

DAMAGED = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, OverflowError, RecursionError)  # OSError: gzip, bz2
COMPRESSED: dict[bytes, Callable[[pathlib.Path], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}


class Bounded:
    """A file opened for reading, unpacked on the way where it is compressed; an error where more than `most` bytes come."""

    def __init__(self, path: pathlib.Path, most: int):
        self.path, self.most, self._left = path, most, most
        with path.open("rb") as stream:
            start = stream.read(6)
        openers = [opener for magic, opener in COMPRESSED.items() if start.startswith(magic)]
        self._stream = openers[0](path) if openers else path.open("rb")

    def read(self, count: int) -> bytes:
        """Up to `count` bytes, fewer at the end only.

        Raises:
          ValueError: damaged, cut off, or longer than it may be.
        """
        parts = []
        try:
            while count and (part := self._stream.read(min(count, 2**20))):
                self._left -= len(part)
                if self._left < 0:
                    raise ValueError(f"{self.path}: unpacks to more than {self.most:,} bytes, which this data set never has")
                parts.append(part)
                count -= len(part)
        except DAMAGED as error:
            raise ValueError(f"{self.path}: damaged or cut off ({error})") from error
        return b"".join(parts)

    def __enter__(self) -> Bounded:
        return self

    def __exit__(self, *_: Any) -> None:
        self._stream.close()


def read_files(path: pathlib.Path, names: Collection[str], most: int) -> dict[str, bytes]:
    """Contents by name of those of `names` that a tar archive, compressed or not, holds in any folder.

    Args:
      most: bytes that the whole archive may unpack to.

    Raises:
      ValueError: damaged, cut off, too large, or one of the files is a link or lies outside the archive's folder.
    """
    found: dict[str, bytes] = {}
    with Bounded(path, most) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
                for member in archive:
                    place = pathlib.PurePosixPath(member.name)
                    if place.name not in names or member.isdir():
                        continue
                    if not member.isreg() or member.issparse():
                        raise ValueError(f"{path}: {member.name:.80} is a link or another special file, a plain one is needed")
                    if place.is_absolute() or ".." in place.parts:
                        raise ValueError(f"{path}: {member.name:.80} lies outside the archive's folder")
                    found[place.name] = archive.extractfile(member).read()  # type: ignore[union-attr]
        except DAMAGED as error:
            raise ValueError(f"{path}: damaged or cut off ({error})") from error
    return found
