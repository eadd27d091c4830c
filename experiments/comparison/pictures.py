"""Pictures of a comparison, measured or compiled: the speedup of the hand-written kernels, and a roofline."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable
from typing import Any

import zoo
from experiments.comparison.models import BLOCK
from experiments.measuring import verdict
from experiments.measuring.pictures import BETTER, INK, PALE, WORSE, XLA, bars, column, conditions, number, ratio_axis, save

MARKERS = {"torch": ("o", "#000000"), "torch.compile": ("s", "#009E73"), "flax": ("^", "#CC79A7"), "cudnn": ("v", "#E69F00")}
SPEED = "bars: speedup of the hand-written kernels over XLA's code (left of 1: slower); points: that of the peers"
TORCH = "bars: speedup of torch over XLA's code (left of 1: torch is slower); points: that of other peers"
BYTES = "XLA's code over the hand-written kernels: bars: bytes moved; ◇: time by the model (left of 1: XLA needs less)"


def _times(axes: Any, duels: list[verdict.Duel]) -> None:
    """Compiled cases: bars of bytes, a diamond at the modelled time, and the figures at the right edge."""
    moved, modelled = [d.ratio("bytes") for d in duels], [d.ratio() for d in duels]
    bars(axes, [d.title for d in duels], moved)
    axes.scatter(modelled, range(len(duels)), s=22, marker="D", facecolor="white", edgecolor=INK, linewidth=0.9, zorder=4)
    ratio_axis(axes, *_range([*modelled, *moved]))
    column(axes, 26, "bytes", [number(value) for value in moved])
    column(axes, 52, "◇ time", [number(value) for value in modelled])
    column(axes, 112, "kernels", [f"{d.xla['kernels']:,} → {d.hand['kernels']:,}" for d in duels])


def _range(values: list[float]) -> tuple[float, float]:
    return min(values), max(values)


def _measured(axes: Any, record: dict[str, Any]) -> None:
    """Measured cases: bars of the hand-written kernels' speedup over XLA's best form, or torch's where there are none; peers as
    points."""
    duels = {d.case["name"]: d for d in verdict.duels(record)}
    rows = []
    for case in record["cases"]:
        points = verdict.peers(case)
        bar = duels[case["name"]].ratio() if case["name"] in duels else None if duels else points.get("torch")
        if bar is not None or points:
            rows.append((verdict.short(case["name"]), bar, points))
    rows.sort(key=lambda row: -(row[1] or 1))
    # A gain of torch's over XLA's code is a loss of ours.
    values = [1.0 if bar is None else bar for _, bar, _ in rows]
    bars(axes, [name for name, _, _ in rows], values, None if duels else [WORSE if v >= 1 else BETTER for v in values])
    column(axes, 26, "bar", ["" if bar is None else number(bar) for _, bar, _ in rows])
    for peer in dict.fromkeys(name for _, _, points in rows for name in points if duels or name != "torch"):
        at = [(points[peer], row) for row, (_, _, points) in enumerate(rows) if peer in points]
        marker, colour = MARKERS.get(peer, ("x", INK))
        axes.scatter(*zip(*at, strict=True), s=20, marker=marker, color=colour, label=peer, zorder=4)
    ratio_axis(axes, *_range([value for _, bar, points in rows for value in (bar or 1.0, *points.values())]))
    axes.set_xlabel(SPEED if duels else TORCH, fontsize=8)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=7.5, loc="lower right")


def draw_speedups(record: dict[str, Any], path: pathlib.Path) -> None:
    """Every case, the largest gain first; losses are bars to the left of 1 in another colour. No pair, no picture."""
    from matplotlib.figure import Figure

    duels = sorted(verdict.duels(record), key=lambda d: -d.ratio("bytes" if not record["measured"] else ""))
    count = len(duels) if not record["measured"] else len(record["cases"])
    if not duels and not any(verdict.peers(case) for case in record["cases"]):
        return
    figure = Figure(figsize=(9, 1.3 + 0.21 * count), layout="constrained")
    axes = figure.subplots()
    if record["measured"]:
        _measured(axes, record)
    else:
        _times(axes, duels)
        axes.set_xlabel(BYTES, fontsize=8)
    figure.suptitle(conditions(record), fontsize=9, x=0.01, ha="left")
    save(figure, path, record)


def _ends(duels: list[verdict.Duel], group: Callable[[verdict.Duel], str], field: str) -> list[verdict.Duel]:
    """The best and the worst duel of each group, the largest gain first."""
    gain = lambda d: d.ratio(field)
    groups: dict[str, list[verdict.Duel]] = {}
    for duel in duels:
        groups.setdefault(group(duel), []).append(duel)
    ends = {d.case["name"]: d for found in groups.values() for d in (max(found, key=gain), min(found, key=gain))}
    return sorted(ends.values(), key=lambda d: -gain(d))


def _family(duel: verdict.Duel) -> str:
    model = duel.case["model"]
    return "resnet" if model == BLOCK else zoo.model_info(model).family


def draw_overview(operators: dict[str, Any], models: dict[str, Any], path: pathlib.Path) -> None:
    """XLA against hand-written kernels at a glance: the best and the worst case of each operator and family of models."""
    from matplotlib.figure import Figure

    panels = []
    for record, what, group in ((operators, "operator", lambda d: d.case["operator"]), (models, "model family", _family)):
        duels = _ends(verdict.duels(record), group, "" if record["measured"] else "bytes")
        panels.append((record, f"Each {what}'s best and worst case", duels))
    heights = [len(duels) + 3 for _, _, duels in panels]
    figure = Figure(figsize=(9, 0.6 + 0.2 * sum(heights)), layout="constrained")
    rows = figure.subplots(2, 1, gridspec_kw={"height_ratios": heights})
    for axes, (record, title, duels) in zip(rows, panels, strict=True):
        if record["measured"] and duels:
            speeds = [d.ratio() for d in duels]
            bars(axes, [d.title for d in duels], speeds)
            column(axes, 26, "speedup", [number(value) for value in speeds])
            ratio_axis(axes, *_range(speeds))
            axes.set_xlabel(SPEED, fontsize=8)
        elif duels:
            _times(axes, duels)
            axes.set_xlabel(BYTES, fontsize=8)
        axes.set_title(f"{title}\n{conditions(record)}", fontsize=9, loc="right")
    figure.suptitle("Hand-written kernels against XLA's code", fontsize=11, x=0.01, ha="left")
    save(figure, path, operators, models)


def roofline_points(record: dict[str, Any]) -> list[tuple[str, str, float, float]]:
    """(case, side, operations per byte, operations per second): measured, by the least bytes of any version; compiled, by the
    bytes that it moves and its modelled time."""
    clock, found = verdict.clock_of(record), []
    for case in record["cases"]:
        for wanted in (verdict.is_xla, verdict.HAND_WRITTEN.__contains__):
            chosen = verdict.best(case["contenders"], clock, wanted)
            if chosen and case.get("flops") and (case.get("bytes") or not record["measured"]):
                moved = case["bytes"] if record["measured"] else chosen[1]["bytes"]
                side = "XLA" if verdict.is_xla(chosen[0]) else "hand-written"
                found.append((case["name"], side, case["flops"] / moved, case["flops"] / chosen[1][clock]))
    return found


def _large(value: float) -> str:
    return f"{value / 1e12:.3g} T" if value >= 1e12 else f"{value / 1e9:.3g} G"


def ceilings(record: dict[str, Any]) -> tuple[float, float]:
    """Bytes and operations per second."""
    limits = record["ceilings"] if record["measured"] else record["model"]
    peak = limits["flops_per_second"]
    return limits["bytes_per_second"], peak if not isinstance(peak, dict) else max(peak.values())


def draw_roofline(record: dict[str, Any], path: pathlib.Path) -> None:
    """Arithmetic intensity against the rate reached, under the ceilings of memory and arithmetic: one case of each operator."""
    from matplotlib.figure import Figure

    points = roofline_points(record)
    first = {case.get("operator", case["name"]): case["name"] for case in reversed(record["cases"])}
    points = [p for p in points if p[0] in first.values()]
    if not points:
        return
    bandwidth, peak = ceilings(record)
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    axes = figure.subplots()
    low = min(p[2] for p in points) / 2
    high = max(max(p[2] for p in points), peak / bandwidth) * 4
    axes.plot([low, peak / bandwidth, high], [low * bandwidth, peak, peak], color=INK, linewidth=1.2)
    axes.annotate(
        f"{_large(peak)}flop/s", (peak / bandwidth, peak), (-6, 2), textcoords="offset points", ha="right", fontsize=8
    )
    axes.annotate(f"{_large(bandwidth)}B/s", (low, low * bandwidth), (26, 2), textcoords="offset points", fontsize=8)
    for side, marker, colour in (("XLA", "o", XLA), ("hand-written", "D", BETTER)):
        mine = [(x, y) for _, who, x, y in points if who == side]
        if mine:
            across, up = zip(*mine, strict=True)
            axes.scatter(across, up, s=34, marker=marker, color=colour, label=side, zorder=3)
    for name in dict.fromkeys(p[0] for p in points):
        pair = [(x, y) for case, _, x, y in points if case == name]
        axes.plot(*zip(*pair, strict=True), color=PALE, linewidth=1.5, zorder=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(top=8 * peak)  # room for the names of what comes near it
    _labels_at_the_side(axes, points)
    what = "by the least bytes of any version" if record["measured"] else "by the bytes that it moves"
    axes.set_xlabel(f"operations per byte, {what}", fontsize=9)
    axes.set_ylabel(f"operations per second, {'measured' if record['measured'] else 'in the modelled time'}", fontsize=9)
    axes.grid(color=PALE, linewidth=0.6)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    axes.set_title(conditions(record), fontsize=9, loc="left")
    save(figure, path, record)


def _labels_at_the_side(axes: Any, points: list[tuple[str, str, float, float]]) -> None:
    """Names in a column right of the axes, ordered by the height of their points, so that none overlap."""
    last = {name: (x, y) for name, _, x, y in points}  # the hand-written point, where there is one
    low, high = (math.log(y) for y in axes.get_ylim())
    height = {name: (math.log(y) - low) / (high - low) for name, (_, y) in last.items()}
    leader = {"arrowstyle": "-", "color": PALE, "linewidth": 0.7, "shrinkB": 3, "relpos": (0, 0.5)}
    place = 0.0
    for name in sorted(last, key=height.__getitem__):
        place = max(place + 0.055, height[name])
        axes.annotate(
            verdict.short(name), last[name], (1.02, place), textcoords="axes fraction", fontsize=7.5, va="center",
            annotation_clip=False, arrowprops=leader,
        )  # fmt: skip
