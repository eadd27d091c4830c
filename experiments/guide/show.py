"""A topic in the terminal: what it teaches, and its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.guide.topic import FIGURES, Topic
from experiments.guide.verdict import shown

MOST = 7  # counted columns
NAMES, GAP = (24, 14), 3  # characters of a variant's name in one line, if need be; and those between two columns


def columns(case: dict[str, Any]) -> list[str]:
    """The counted figures worth showing: the one that decides, and those in which the variants differ."""
    found = [v["compiled"] for v in case["variants"].values() if v["compiled"] is not None]
    if not found:
        return []
    differing = [
        name
        for name in FIGURES
        if all(name in f for f in found) and (len({f[name] for f in found}) > 1 or name in ("transfer_ms", "step_ms"))
    ]
    chosen = [name for name in differing if name != case["figure"]][: MOST - 1]
    return [name for name in FIGURES if name in chosen or (name == case["figure"] and all(name in f for f in found))]


def cells(case: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of a case's table; heads of numbers begin with >."""
    names = columns(case)
    timed = any(v["measured"] for v in case["variants"].values())
    heads = [case["name"], *(f">{FIGURES[name].head}" for name in names)]
    heads += [">median ms", ">p20 to p80", ">of the floor"] if timed else []
    rows = []
    for name, variant in case["variants"].items():
        row = [name]
        if variant["failed"] is not None:
            row[0] += f" ({variant['failed']})"
        row += [shown(n, variant["compiled"][n]) if variant["compiled"] else "" for n in names]
        if timed:
            m = variant["measured"]
            floor = "" if m is None or m["floor_fraction"] is None else f"{m['floor_fraction']:.0%}"
            row += (
                ["", "", ""]
                if m is None
                else [f"{m['median'] * 1e3:.3g}", f"{m['p20'] * 1e3:.3g} to {m['p80'] * 1e3:.3g}", floor]
            )
        rows.append(row)
    return heads, rows


HOW = {
    "compiled": "counted in the code compiled for an H200, not run",
    "executed": "counted while its H200 code was executed on a CPU",
    "modelled": "modelled for an H200, not run",
}


def obtained(record: dict[str, Any], how: str, figure: str | None) -> str:
    """How the figures of a verdict were obtained."""
    return f"measured on {record['device']}" if how == "measured" or figure is None else HOW[FIGURES[figure].how]


Found = list[tuple[dict[str, Any], dict[str, Any]]]  # the same case, or topic, of several records: its row, and the record


def where(case: dict[str, Any], record: dict[str, Any], sizes: Mapping[str, Sequence[int]]) -> str:
    """Where a case's figures are from, and its size there; `sizes` are those of the topic's case."""
    how = "measured on" if record["measured"] else "compiled for"
    timed = any(variant["measured"] for variant in case["variants"].values())
    # The row's own size is that of the clock, or without one of the check.
    found = case["size"] if timed else sizes.get("compile", case["size"])
    size = f", {' x '.join(map(str, found))}" if found else ""
    return f"{how} {record['device']}, {case['dtype']}{size}"


def beside(found: Found) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of one case's table, the figures of its records side by side; heads of numbers begin with >."""
    heads, lines = [found[0][0]["name"]], {name: [name] for case, _ in found for name in case["variants"]}
    for case, _ in found:
        more, rows = cells(case)
        given = dict(zip(case["variants"], rows, strict=True))
        heads += more[1:]
        for name, line in lines.items():
            line += given[name][1:] if name in given else [""] * len(more[1:])
            if name in given and len(given[name][0]) > len(line[0]):  # it says why there are no figures
                line[0] = given[name][0]
    return heads, list(lines.values())


def parted(heads: list[str], rows: list[list[str]], width: int) -> list[dict[int, int]]:
    """The columns of each table that a case's figures take in so many characters, with their widths; the first is in all.

    No word and no number is cut: where all do not fit, heads wrap, then names of variants, then there is another table.
    """
    cells = [[row[n] for row in rows] for n in range(len(heads))]
    longest = [max(map(len, column), default=1) for column in cells]
    shortest = max((len(part) for name in cells[0] for part in name.split()), default=1)
    words = [max(map(len, head.split()), default=1) for head in heads]

    def widths(heads: list[int], name: int) -> list[int]:
        return [max(shortest, min(longest[0], name)), *(max(pair) for pair in zip(longest[1:], heads[1:], strict=True))]

    def packed(chosen: list[int]) -> list[dict[int, int]]:
        parts: list[dict[int, int]] = [{0: chosen[0]}]
        for n in range(1, len(heads)):
            if len(parts[-1]) > 1 and sum(parts[-1].values()) + chosen[n] + GAP * (len(parts[-1]) + 1) - 1 > width:
                parts.append({0: chosen[0]})
            parts[-1][n] = chosen[n]
        return parts

    tries = (list(map(len, heads)), NAMES[0]), *((words, name) for name in NAMES)
    return min((packed(widths(*one)) for one in tries), key=len)  # the first of the fewest tables


def show(topic: Topic, found: Found, console: Console) -> None:
    """The lesson, and each case with the figures of every record."""
    console.rule(f"[bold]{topic.name}")
    for paragraph in topic.text.strip().split("\n\n"):
        console.print(" ".join(paragraph.split()) + "\n", highlight=False, markup=False)
    console.print(f"In this repository: {topic.kernel}.\n", highlight=False)
    by_case: dict[str, Found] = {}
    for row, record in found:
        for case in row["cases"]:
            by_case.setdefault(case["name"], []).append((case, record))
    if not by_case:
        console.print("This topic has figures only on a GPU.\n")
    for name, cases in by_case.items():
        heads, rows = beside(cases)
        heads = ["", *(head.lstrip(">") for head in heads[1:])]  # the first one is the title
        sizes = next((case.sizes for case in topic.cases if case.name == name), {})
        console.print(f"[bold]{escape(name)}[/]", highlight=False)
        for part in parted(heads, rows, console.width):
            table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
            for n, width in part.items():
                table.add_column(heads[n], justify="right" if n else "left", width=width)
            for cells_ in rows:
                table.add_row(*(escape(cells_[n]) for n in part))
            console.print(table)
        for case, record in cases:
            console.print(escape(where(case, record, sizes)), highlight=False, style="dim italic")
        for case, record in cases:
            for how, text in case["verdicts"].items():
                if text is not None:
                    named = escape(f"{case['better']} instead of {case['baseline']}")
                    console.print(f"{named}: [bold]{text}[/] ({obtained(record, how, case['figure'])})", highlight=False)
        console.print()
    for case in topic.cases:
        if case.name not in by_case and case.figure is None and not case.runnable("cpu"):
            console.print(f"[bold]{escape(case.name)}[/]: only timing on a GPU can tell.\n", highlight=False)
    if topic.exercise:
        answer = topic.answer() if topic.answer is not None else ""
        console.print(f"Exercise: {topic.exercise}\nAnswer: {answer}\n", highlight=False, markup=False)
