"""What the pictures of results share.

Each PNG says in its metadata which records it was drawn from (`digest`), so that a test can tell when it is out of date.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from typing import Any

# Okabe and Ito's colours, which people with any colour vision tell apart; shapes differ as well. A contender has the same
# colour in every picture, and in the page of `experiments.report --html`.
BETTER, WORSE, XLA, INK, PALE = "#0072B2", "#D55E00", "#7F7F7F", "#222222", "#D9D9D9"
CONTENDERS = {
    "XLA": XLA,
    "ours": BETTER,
    "torch": "#E69F00",
    "torch.compile": "#A66F00",
    "flax": "#009E73",
    "even": PALE,
}
DIGEST = "Records"  # key of the PNG's metadata


def digest(*records: dict[str, Any]) -> str:
    """The digest of the records' content, whatever their formatting."""
    return hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()


def drawn_from(path: pathlib.Path) -> str | None:
    """The digest of the records that a picture was drawn from; None where there is no picture, or it does not say."""
    from PIL import Image

    if not path.exists():
        return None
    with Image.open(path) as image:
        return image.info.get(DIGEST)


def conditions(record: dict[str, Any]) -> str:
    """Measured or compiled, for which device, with what, at which precision, when."""
    how = "measured" if record["measured"] else "COMPILED, not run"
    dtypes = sorted({case.get("dtype", record.get("dtype", "")) for case in record["cases"]})
    return f"{how}: {record['device']}, jax {record['versions']['jax']}, {'/'.join(dtypes)}, {record['date']}"


def save(figure: Any, path: pathlib.Path, *records: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={DIGEST: digest(*records), "Software": None})


def number(value: float) -> str:
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 1.95 else f"{value:.2f}"


def ratio_axis(axes: Any, low: float, high: float) -> None:
    """Logarithmic, so that twice as slow is as long a bar as twice as fast."""
    axes.set_xscale("log")
    axes.set_xlim(min(0.8, low / 1.15), max(1.25, high * 1.15))
    left, right = axes.get_xlim()
    ticks = [t for t in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if left <= t <= right]
    axes.set_xticks(ticks, [f"{t:g}×" for t in ticks], fontsize=8)
    axes.set_xticks([], minor=True)
    axes.axvline(1, color=INK, linewidth=1, zorder=3)
    axes.grid(axis="x", color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def bars(axes: Any, labels: list[str], values: list[float], colours: list[str] | None = None) -> None:
    """Bars that start at 1 and go to the right where the value is above, to the left where it is below."""
    rows = range(len(values))
    colours = colours or [BETTER if value >= 1 else WORSE for value in values]
    axes.barh(rows, [value - 1 for value in values], 0.62, left=1, color=colours, zorder=2)
    axes.set_yticks(rows, labels, fontsize=7.5)
    axes.set_ylim(len(values) - 0.4, -0.6)


def legend(axes: Any, names: dict[str, str], place: str = "lower right") -> None:
    """A square of each colour and what it stands for; with an "outside" place in a row beside the axes."""
    from matplotlib.patches import Patch

    outside = place.startswith("outside")
    handles = [Patch(color=colour, label=name) for name, colour in names.items()]
    owner = axes.figure if outside else axes
    owner.legend(handles=handles, frameon=False, fontsize=8, loc=place, ncols=len(names) if outside else 1)


def column(axes: Any, place: int, head: str, cells: list[str]) -> None:
    """Text to the right of the bars, `place` points from their edge, one cell a row."""
    for row, cell in enumerate(cells):
        axes.annotate(cell, (1, row), (place, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                      va="center", ha="right", fontsize=7, color=INK)  # fmt: skip
    axes.annotate(head, (1, 1), (place, 2), xycoords="axes fraction", textcoords="offset points", va="bottom", ha="right",
                  fontsize=7, color=INK)  # fmt: skip
