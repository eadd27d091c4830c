"""Pictures of a comparison: speed-up bars, and a roofline with each case as a point."""

from __future__ import annotations

import pathlib
from typing import Any

COLOURS = {"xla": "#7f8c8d", "triton": "#2e86ab", "pallas": "#8e44ad", "torch": "#d35400", "torch.compile": "#f39c12"}


def _subtitle(record: dict[str, Any]) -> str:
    versions = record["versions"]
    how = "measured" if record["measured"] else "compiled, not run"
    return f"{record['device']}, jax {versions['jax']}, {record['date']}, {how}"


def draw_speedups(record: dict[str, Any], path: pathlib.Path) -> None:
    """How many times as fast as XLA's code each contender is; below one is slower."""
    from matplotlib.figure import Figure

    rows = [(c["name"], c["contenders"]) for c in record["cases"] if "median" in c["contenders"].get("xla", {})]
    names = list(dict.fromkeys(n for _, found in rows for n, f in found.items() if n != "xla" and "median" in f))
    if not rows or not names:
        return
    figure = Figure(figsize=(9, 1.4 + 0.42 * len(rows) * max(1, len(names) / 2)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(names)
    for index, name in enumerate(names):
        at, values = [], []
        for row, (_, found) in enumerate(rows):
            if "median" in found.get(name, {}):
                at.append(row + (index - (len(names) - 1) / 2) * height)
                values.append(found["xla"]["median"] / found[name]["median"])
        bars = axes.barh(at, values, height, label=name, color=COLOURS.get(name))
        axes.bar_label(bars, [f"{v:.2f}" for v in values], padding=3, fontsize=7)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("speed over XLA's code (1: as fast; below 1: slower)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    axes.set_title(_subtitle(record), fontsize=9)
    figure.savefig(path, dpi=130)


def draw_roofline(record: dict[str, Any], path: pathlib.Path) -> None:
    """Arithmetic intensity against the rate reached, under the ceilings of memory and arithmetic."""
    from matplotlib.figure import Figure

    points = [
        (case["name"], name, case["flops"] / case["bytes"], case["flops"] / found["median"])
        for case in record["cases"]
        for name, found in case["contenders"].items()
        if "median" in found and case.get("flops") and case.get("bytes")
    ]
    if not points:
        return
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(p[1] for p in points):
        chosen = [p for p in points if p[1] == name]
        axes.scatter([p[2] for p in chosen], [p[3] for p in chosen], s=22, label=name, color=COLOURS.get(name))
    bandwidth, peak = record["ceilings"]["bytes_per_second"], record["ceilings"]["flops_per_second"]
    low, high = min(p[2] for p in points) / 3, max(max(p[2] for p in points), peak / bandwidth) * 3
    axes.plot([low, peak / bandwidth, high], [low * bandwidth, peak, peak], color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations per byte that must be moved")
    axes.set_ylabel("operations per second")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    axes.set_title(_subtitle(record), fontsize=9)
    figure.savefig(path, dpi=130)
