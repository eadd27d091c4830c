"""The gain of each case, in one picture; its metadata say which record it was drawn from."""

from __future__ import annotations

import pathlib
from typing import Any

from experiments.guide import verdict
from experiments.guide.topic import Topic
from experiments.measuring.pictures import BETTER, PALE, WORSE, bars, column, ratio_axis, save

LIMIT = 32.0  # gains beyond it are drawn there, with their figure


def gains_of(record: dict[str, Any], how: str) -> list[tuple[str, str, float, str]]:
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


def draw_topic(topic: Topic, row: dict[str, Any], path: pathlib.Path) -> None:
    """What a topic's `picture` draws."""
    from matplotlib.figure import Figure

    assert topic.picture is not None
    figure = Figure(figsize=(9, 4), layout="constrained")
    topic.picture(figure, row)
    save(figure, path, row)


def draw(record: dict[str, Any], path: pathlib.Path) -> None:
    """Bars of how many times better the optimized variant is: to the left of 1 it is worse. No gain, no picture."""
    from matplotlib.figure import Figure

    how = "measured" if record["measured"] else "compiled"
    found = gains_of(record, how)
    if not found:
        return
    labels, texts, gains, colours = map(list, zip(*found, strict=True))
    figure = Figure(figsize=(9, 1.4 + 0.24 * len(gains)), layout="constrained")
    axes = figure.subplots()
    bars(axes, labels, [min(max(gain, 1 / LIMIT), LIMIT) for gain in gains], colours)
    ratio_axis(axes, 1 / LIMIT, LIMIT)
    column(axes, 84, "gain", texts)
    what = (
        "speedup, measured"
        if record["measured"]
        else "times better in the figure that decides (compiled, executed or modelled; not timed)"
    )
    axes.set_xlabel(f"{what}; left of 1: worse", fontsize=9)
    axes.set_title(f"Which optimization pays: {record['device']}, {record['date']}", fontsize=10)
    save(figure, path, record)
