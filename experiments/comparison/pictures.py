"""Pictures of a comparison, measured or compiled: the speedup of the hand-written kernels, and a roofline."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable
from typing import Any

import zoo
from experiments.comparison.models import BLOCK
from experiments.measuring import verdict
from experiments.measuring.pictures import (
    BETTER,
    CONTENDERS,
    INK,
    PALE,
    XLA,
    bars,
    column,
    conditions,
    legend,
    number,
    ratio_axis,
    save,
)

MARKERS = {"torch": "o", "torch.compile": "s", "flax": "^"}
# A stranger's names of what is compared.
NAMES = {
    "max_pool": "max pooling",
    "local_response_norm": "local response norm",
    "batch_norm_act": "batch norm + ReLU",
    "linear_act": "linear + ReLU",
    "mlp": "two linear layers (GAN)",
    "lenet5": "LeNet-5, whole network",
    "softmax_cross_entropy": "cross-entropy",
    "rnn": "RNN layer",
    "lstm": "LSTM layer",
    "gru": "GRU layer",
    "conv": "convolution",
}
FAMILIES = {
    "recurrent": "recurrent networks",
    "gan": "GANs",
    "googlenet": "GoogLeNet",
    "alexnet": "AlexNet",
    "lenet": "LeNet-5",
    "vgg": "VGG",
    "resnet": "ResNet",
}
OURS_BETTER, XLA_BETTER, SAME = "hand-written kernels better", "XLA's code better", "no difference (within 5%)"
SIDES = {"hand-written": "ours", "XLA": "XLA", "even": "even"}
LEGEND = {OURS_BETTER: BETTER, XLA_BETTER: XLA, SAME: PALE}


def _ratio(duel: verdict.Duel) -> float:
    """What a picture shows of a duel: its speedup where it was measured, else how many times more bytes XLA's code moves."""
    return duel.ratio("" if duel.clock == "median" else "bytes")


def _colour(ratio: float, duel: verdict.Duel | None = None) -> str:
    """The winner's; measured times are even where the noise says so, counts within 5%."""
    if duel is not None and duel.clock == "median":
        return CONTENDERS[SIDES[duel.winner]]
    return PALE if verdict.even(ratio) else BETTER if ratio > 1 else XLA


def _measure(record: dict[str, Any]) -> str:
    return (
        "speedup relative to XLA's code"
        if record["measured"]
        else "bytes of XLA's code, divided by those of the hand-written kernels"
    )


def _spread(axes: Any, groups: dict[str, list[verdict.Duel]]) -> None:
    """A row per group: a dot per case, on a line from the worst to the best."""
    rows = sorted(groups, key=lambda name: -max(map(_ratio, groups[name])))
    for row, name in enumerate(rows):
        values = [_ratio(duel) for duel in groups[name]]
        axes.plot([min(values), max(values)], [row, row], color=PALE, linewidth=5, solid_capstyle="round", zorder=1)
        colours = [_colour(value, duel) for value, duel in zip(values, groups[name], strict=True)]
        axes.scatter(values, [row] * len(values), s=34, c=colours, edgecolor="white", linewidth=0.6, zorder=4)
    axes.set_yticks(range(len(rows)), rows, fontsize=9)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    ratio_axis(axes, *_range([_ratio(duel) for found in groups.values() for duel in found]))
    spans = [dict.fromkeys(map(number, _range([_ratio(duel) for duel in groups[name]]))) for name in rows]
    column(axes, 66, "", [" to ".join(span) for span in spans])


def _range(values: list[float]) -> tuple[float, float]:
    return min(values), max(values)


def _dots(axes: Any, names: dict[str, str]) -> None:
    """What the dots mean."""
    from matplotlib.lines import Line2D

    dot = lambda colour, name: Line2D([], [], marker="o", linestyle="", color=colour, label=name)
    axes.legend(handles=[dot(colour, name) for name, colour in names.items()], frameon=False, fontsize=8, loc="lower right")


def _single(axes: Any, duels: list[verdict.Duel], label: Callable[[verdict.Duel], str]) -> None:
    """A bar per duel, the largest first, with its figure."""
    values = [_ratio(duel) for duel in duels]
    bars(
        axes, [label(duel) for duel in duels], values, [_colour(value, duel) for value, duel in zip(values, duels, strict=True)]
    )
    ratio_axis(axes, *_range(values))
    column(axes, 30, "", [number(value) for value in values])


def _peers(axes: Any, record: dict[str, Any]) -> None:
    """Without hand-written kernels: a bar per case for torch against XLA's code in the faster's colour; others are points."""
    rows = [(verdict.short(case["name"]), case, verdict.peers(case)) for case in record["cases"] if verdict.peers(case)]
    first = next(name for name in ("torch", *MARKERS) if any(name in points for *_, points in rows))
    rows = sorted((row for row in rows if first in row[2]), key=lambda row: -row[2][first])
    colours = []
    for _, case, points in rows:
        xla = verdict.best(case["contenders"], "median", verdict.is_xla)
        even = xla is not None and verdict.touch(xla[1], case["contenders"][first])
        colours.append(PALE if even else CONTENDERS[first if points[first] > 1 else "XLA"])
    bars(axes, [name for name, *_ in rows], [points[first] for *_, points in rows], colours)
    column(axes, 30, "", [number(points[first]) for *_, points in rows])
    for peer in dict.fromkeys(name for *_, points in rows for name in points if name != first):
        at = [(points[peer], row) for row, (*_, points) in enumerate(rows) if peer in points]
        axes.scatter(*zip(*at, strict=True), s=20, marker=MARKERS.get(peer, "x"), color=CONTENDERS.get(peer, INK), zorder=4)
    ratio_axis(axes, *_range([value for *_, points in rows for value in points.values()]))
    names = {f"{first} faster": CONTENDERS[first], "XLA's code faster": XLA, "no difference": PALE}
    names |= {f"{peer} (points)": CONTENDERS.get(peer, INK) for *_, points in rows for peer in points if peer != first}
    legend(axes, names, "outside lower center")
    axes.set_xlabel(f"speedup of {first} relative to XLA's code", fontsize=9)


def _message(duels: list[verdict.Duel]) -> str:
    """What the picture says: how many of the cases each side wins."""
    colours = [_colour(_ratio(duel), duel) for duel in duels]
    measured = duels[0].clock == "median"
    does, not_ = ("are faster than", "slower") if measured else ("transfer fewer bytes than", "more")
    count = f"{colours.count(BETTER)} of {len(duels)} cases, {not_} in {colours.count(XLA) or 'none'}"
    return f"Hand-written kernels {does} XLA's code in {count}"


def _present(duels: list[verdict.Duel]) -> dict[str, str]:
    """The legend of the colours that occur."""
    colours = {_colour(_ratio(duel), duel) for duel in duels}
    return {name: colour for name, colour in LEGEND.items() if colour in colours}


def draw_speedups(record: dict[str, Any], path: pathlib.Path) -> None:
    """Every case that makes a difference, the largest gain first; the others in a sentence. No pair, no picture."""
    from matplotlib.figure import Figure

    duels = sorted(verdict.duels(record), key=lambda duel: -_ratio(duel))
    if not duels and not any(verdict.peers(case) for case in record["cases"]):
        return
    if not duels:
        figure = Figure(
            figsize=(9, 1.6 + 0.21 * sum(bool(verdict.peers(case)) for case in record["cases"])), layout="constrained"
        )
        _peers(figure.subplots(), record)
        figure.suptitle(conditions(record), fontsize=9, x=0.01, ha="left")
        save(figure, path, record)
        return
    told = [duel for duel in duels if _colour(_ratio(duel), duel) != PALE] or duels
    parts = {"": told}
    label = lambda duel: verdict.short(duel.case["name"])
    if "train" in record["cases"][0]:
        parts = {
            name: [d for d in told if d.case["train"] == train]
            for name, train in (("Training step", True), ("Inference", False))
        }
        label = lambda duel: duel.case["model"] + (f" (batch {duel.case['examples']})" if _repeated(told, duel) else "")
    parts = {name: found for name, found in parts.items() if found}
    heights = [len(found) + 2.5 for found in parts.values()]
    figure = Figure(figsize=(8, 1.1 + 0.2 * sum(heights)), layout="constrained")
    rows = figure.subplots(len(parts), 1, squeeze=False, sharex=True, gridspec_kw={"height_ratios": heights})[:, 0]
    for axes, (name, found) in zip(rows, parts.items(), strict=True):
        _single(axes, found, label)
        axes.set_title(name, fontsize=10, loc="left")
    ratio_axis(rows[-1], *_range([_ratio(duel) for duel in told]))
    legend(rows[0], _present(told))
    left = len(duels) - len(told)
    rest = f"\nNot shown: {left} {'case' if left == 1 else 'cases'} without a difference." if left else ""
    rows[-1].set_xlabel(_measure(record) + rest, fontsize=9)
    figure.suptitle(f"{_message(duels)}\n{conditions(record)}", fontsize=10, x=0.01, ha="left")
    save(figure, path, record)


def _repeated(duels: list[verdict.Duel], one: verdict.Duel) -> bool:
    """Whether a model is there at several sizes."""
    return sum(d.case["model"] == one.case["model"] and d.case["train"] == one.case["train"] for d in duels) > 1


def _family(duel: verdict.Duel) -> str:
    model = duel.case["model"]
    family = "resnet" if model == BLOCK else zoo.model_info(model).family
    return FAMILIES.get(family, family)


def draw_overview(operators: dict[str, Any], models: dict[str, Any], path: pathlib.Path) -> None:
    """Both sides at a glance: a row per operator and per family of models in training, a dot per case."""
    from matplotlib.figure import Figure

    groups: list[dict[str, list[verdict.Duel]]] = [{}, {}]
    for duel in verdict.duels(operators):
        groups[0].setdefault(NAMES.get(duel.case["operator"], duel.case["operator"]), []).append(duel)
    training = [duel for duel in verdict.duels(models) if duel.case["train"]]
    inference = [duel for duel in verdict.duels(models) if not duel.case["train"]]
    for duel in training:
        groups[1].setdefault(_family(duel), []).append(duel)
    titles = ["Operators", "Models, a whole training step"]
    shown = [(title, found) for title, found in zip(titles, groups, strict=True) if found]
    heights = [len(found) + 2 for _, found in shown]
    figure = Figure(figsize=(9, 1.5 + 0.3 * sum(heights)), layout="constrained")
    rows = figure.subplots(len(shown), 1, squeeze=False, sharex=True, gridspec_kw={"height_ratios": heights})[:, 0]
    for axes, (title, found) in zip(rows, shown, strict=True):
        _spread(axes, found)
        axes.set_title(title, fontsize=10, loc="left")
    every = [duel for found in groups for duels in found.values() for duel in duels]
    ratio_axis(rows[-1], *_range([_ratio(duel) for duel in every]))
    _dots(rows[0], _present(every))
    same = sum(_colour(_ratio(duel), duel) == PALE for duel in inference)
    rest = f"\nInference: no difference in {same} of {len(inference)} cases (convolutional networks)." if inference else ""
    rows[-1].set_xlabel(f"{_measure(operators)}, a dot per case{rest}", fontsize=9)
    said = conditions(
        operators | {"date": max(operators["date"], models["date"]), "cases": operators["cases"] + models["cases"]}
    )
    figure.suptitle(f"{_message(every)}\n{said}", fontsize=11, x=0.01, ha="left")
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
    low = min(*(p[2] / 2 for p in points), peak / bandwidth / 8)  # with room for both ceilings' names
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
