"""The gain of each case, in one picture; its metadata say which record it was drawn from."""

from __future__ import annotations

import pathlib
from typing import Any

from experiments.guide import verdict
from experiments.measuring.pictures import BETTER, INK, PALE, WORSE, save

LIMIT = 32.0  # gains beyond it are drawn there, with their figure


def bars(record: dict[str, Any], how: str) -> list[tuple[str, str, float, str]]:
    """Label, gain in a word, gain and colour of each case that has one, in the record's order: pale where its verdict says that
    it makes no difference."""
    found = []
    for topic in record["topics"]:
        for case in topic["cases"]:
            value = verdict.gain(case, how)
            if value is not None:
                label = f"{topic['topic'].replace('_', ' ')}: {case['name']}"
                pale = str(case["verdicts"][how]).startswith("makes no difference")
                found.append((label, verdict.short(case, how), value, PALE if pale else BETTER if value > 1 else WORSE))
    return found


def draw(record: dict[str, Any], path: pathlib.Path) -> None:
    """Bars of how many times better the optimized variant is: to the left of 1 it is worse."""
    from matplotlib.figure import Figure

    how = "measured" if record["measured"] else "compiled"
    found = bars(record, how)
    figure = Figure(figsize=(9, 1.4 + 0.27 * max(1, len(found))), layout="constrained")
    axes = figure.subplots()
    for y, (_, text, value, colour) in enumerate(found):
        shown = min(max(value, 1 / LIMIT), LIMIT)
        axes.barh(y, shown - 1, left=1, color=colour, height=0.7)
        side = 1 if value >= 1 else -1
        axes.annotate(
            text,
            (shown, y),
            (4 * side, 0),
            textcoords="offset points",
            va="center",
            ha="left" if side > 0 else "right",
            color=INK,
            fontsize=8,
        )
    axes.set_yticks(range(len(found)), [label for label, *_ in found], fontsize=8)
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.set_xscale("log", base=2)
    axes.set_xlim(1 / LIMIT / 4, LIMIT * 4)
    ticks = [1 / 16, 1 / 4, 1, 4, 16]
    axes.set_xticks(ticks, ["1/16", "1/4", "1", "4", "16"])
    axes.axvline(1, color=INK, linewidth=0.8)
    what = "speedup, measured" if record["measured"] else "times better in the figure that decides (compiled, not run)"
    axes.set_xlabel(f"{what}; left of 1: worse")
    axes.set_title(f"Which optimization pays: {record['device']}, {record['date']}", fontsize=10)
    save(figure, path, record)
