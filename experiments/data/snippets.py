"""Short pieces of Python that stand on their own: statements with the lines of comment above them."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator, Sequence

import numpy as np

SHORTEST, LONGEST = 10, 200  # characters


def blocks(text: str) -> Iterator[list[ast.stmt]]:
    """The statements of each block of a program, nested ones too."""
    for node in ast.walk(ast.parse(text)):
        for name in ("body", "orelse", "finalbody"):
            found = getattr(node, name, None)
            if isinstance(found, list) and found and isinstance(found[0], ast.stmt):
                yield found


def snippets(text: str, rng: np.random.Generator, share: float = 1.0) -> list[str]:
    """From a share of the blocks one or several statements in a row, chosen at random, of SHORTEST to LONGEST characters.

    Their indentation is taken off.
    """
    lines, found = text.splitlines(keepends=True), []
    for statements in blocks(text):
        if rng.random() >= share:
            continue
        first = int(rng.integers(len(statements)))
        start = _first_line(statements[first], lines)
        ends = [statement.end_lineno or 0 for statement in statements[first:]]
        sizes = [sum(map(len, lines[start:end])) for end in ends]
        fitting = [end for end, size in zip(ends, sizes, strict=True) if size <= LONGEST]
        if fitting:
            piece = textwrap.dedent("".join(lines[start : int(rng.choice(fitting))])).rstrip("\n")
            found += [piece + "\n" * int(rng.integers(2))] if len(piece) >= SHORTEST else []
    return found


def _first_line(statement: ast.stmt, lines: Sequence[str]) -> int:
    """The index of a statement's first line, that of its decorators and of the comment above it."""
    decorators = getattr(statement, "decorator_list", [])
    line = min(node.lineno for node in (statement, *decorators)) - 1
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
    return line
