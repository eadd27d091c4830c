"""Names as people give them, legible in pictures and on terminals."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any

# Fonts that come with matplotlib whose codes stand for other characters, or whose glyphs are boxes.
_NOT_TEXT = ("Last Resort", "cm", "STIXNonUnicode", "STIXSize")


def printable(name: str) -> str:
    """A name whose control characters, and bytes that are no text, are written out: \\x07."""
    return "".join(char if char.isprintable() else _written_out(char) for char in name)


def drawable(names: Iterable[str]) -> tuple[list[str], dict[str, Any]]:
    """Names for a picture, and matplotlib's keywords to draw them with: nothing is mathematics.

    Characters that the usual font lacks are drawn in one of the installed fonts, or written out (\\u732b) where none has them.
    """
    names = list(names)
    missing = {ord(char) for name in names for char in name} - _usual_characters()
    families = ["sans-serif"]
    for family, characters in _other_fonts() if missing else ():
        if missing & characters:
            families.append(family)
            missing -= characters
        if not missing:
            break
    shown = ["".join(_written_out(char) if ord(char) in missing else char for char in name) for name in names]
    return shown, {"fontfamily": families, "parse_math": False}


def _written_out(char: str) -> str:
    return char.encode("unicode_escape").decode()


@functools.cache
def _usual_characters() -> frozenset[int]:
    from matplotlib import font_manager

    return frozenset(font_manager.get_font(font_manager.findfont(font_manager.FontProperties())).get_charmap())


def _other_fonts() -> Iterator[tuple[str, set[int]]]:
    """Families and the characters of their upright, ordinary fonts."""
    from matplotlib import font_manager

    for entry in font_manager.fontManager.ttflist:
        if entry.style == "normal" and entry.weight in (400, "normal", "regular") and not entry.name.startswith(_NOT_TEXT):
            font = font_manager.get_font(entry.fname)
            if font.scalable:  # not a font of pictures, such as emoji in colour
                yield entry.name, set(font.get_charmap())
