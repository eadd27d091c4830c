"""The gain of each case, in one picture; its metadata say which record it was drawn from."""

from __future__ import annotations

import pathlib
from typing import Any

from experiments.guide import verdict
from experiments.guide.topic import Topic
from experiments.measuring.pictures import BETTER, PALE, WORSE, ratio_axis, save

LIMIT = 32.0  # gains beyond it are drawn there


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
    """A row per topic, a dot per case: how many times better the optimized variant is. No gain, no picture."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    found = gains_of(record, "measured" if record["measured"] else "compiled")
    if not found:
        return
    topics = list(dict.fromkeys(label.partition(": ")[0] for label, *_ in found))
    figure = Figure(figsize=(9, 1.7 + 0.3 * len(topics)), layout="constrained")
    axes = figure.subplots()
    for row, topic in enumerate(topics):
        mine = sorted((gain, colour) for label, _, gain, colour in found if label.partition(": ")[0] == topic)
        at: dict[float, int] = {}
        for gain, colour in mine:
            place = min(max(gain, 1 / LIMIT), LIMIT)
            # Equal gains stand beside each other; those beyond the axis are triangles at its end.
            beside = at.setdefault(round(place, 2), 0)
            at[round(place, 2)] += 1
            marker = "o" if place == gain else ">" if gain > 1 else "<"
            shift = place * 1.09 ** (beside if marker != ">" else -beside)
            axes.plot(shift, row, marker, color=colour, markersize=8, markeredgecolor="#555555", markeredgewidth=0.6, zorder=4)
    axes.set_yticks(range(len(topics)), topics, fontsize=9)
    axes.set_ylim(len(topics) - 0.4, -0.6)
    shown = [min(max(gain, 1 / LIMIT), LIMIT) for _, _, gain, _ in found]
    ratio_axis(axes, min(shown), max(shown))
    axes.grid(axis="y", color=PALE, linewidth=0.6)
    dot = lambda colour, name, marker="o": Line2D([], [], marker=marker, linestyle="", color=colour, label=name)
    names = [(BETTER, "pays"), (PALE, "makes no difference"), (WORSE, "costs")]
    handles = [dot(*name) for name in names]
    if any(gain > LIMIT or gain < 1 / LIMIT for _, _, gain, _ in found):
        handles += [dot("#555555", f"more than {LIMIT:g} times", ">"), dot("#555555", f"less than 1/{LIMIT:g}", "<")]
    figure.legend(handles=handles, frameon=False, fontsize=8.5, ncols=5, loc="outside lower center")
    what = (
        "speedup, measured" if record["measured"] else "times better in the figure that decides; compiled, executed or modelled"
    )
    axes.set_xlabel(f"{what}; a dot per case", fontsize=9)
    paying, costing = (sum(colour == wanted for *_, colour in found) for wanted in (BETTER, WORSE))
    said = f"Optimizations pay in {paying} of {len(found)} cases, cost in {costing}"
    figure.suptitle(f"{said}: {record['device']}, {record['date']}", fontsize=10, x=0.01, ha="left")
    save(figure, path, record)
