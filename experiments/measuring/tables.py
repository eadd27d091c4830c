"""Tables in Markdown, and the line under them."""

from __future__ import annotations

from typing import Any

Table = tuple[list[str], list[list[str]]]  # header and rows; a header that begins with > is aligned to the right


def markdown(header: list[str], rows: list[list[str]]) -> str:
    align = ["---:" if cell.startswith(">") else "---" for cell in header]
    lines = [[cell.lstrip(">") for cell in header], align, *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def where(found: dict[str, Any]) -> str:
    """The line under a table: where, with which versions and when its figures were obtained."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items() if name in ("jax", "torch"))
    how = {"measured": "Measured", "compiled": "Compiled, not run", "executed": "Executed on a CPU, not timed"}[found["how"]]
    return f"{how}: {found['device']}, {versions}, {found['date']}.\n"


def shown(table: Table, *records: dict[str, Any]) -> str:
    """A table and where its figures are from."""
    return markdown(*table) + "".join(map(where, records))
