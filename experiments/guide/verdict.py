"""Whether an optimization pays, in a sentence that follows from two figures."""

from __future__ import annotations

import math
import pathlib
import re
from typing import Any

from experiments.measuring import result
from experiments.measuring.verdict import even, touch

Row = dict[str, Any]


def number(value: float) -> str:
    """Four digits at most, thousands apart."""
    if value != value or math.isinf(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def shown(figure: str, value: float) -> str:
    """A counted figure; large numbers of bytes in KB, MB or GB, a share as a percentage."""
    if figure == "read_share":
        return f"{value:.0%}"
    if figure.endswith("bytes") or figure.startswith("bytes_"):
        for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e4, "KB")):
            if value >= limit:
                return f"{value / (limit if unit != 'KB' else 1e3):.3g} {unit}"
    return number(value)


def pair(case: Row, how: str) -> tuple[float, float] | None:
    """The figures of the baseline and of the optimized variant: `how` is "compiled" or "measured"; None where one has none."""
    found = []
    for name in (case["baseline"], case["better"]):
        figures = case["variants"].get(name, {}).get(how)
        key = case["figure"] if how == "compiled" else "median"
        if figures is None or key not in figures:
            return None
        found.append(float(figures[key]))
    return found[0], found[1]


def gain(case: Row, how: str) -> float | None:
    """How many times better the optimized variant is; below 1 it is worse, infinite or 0 where a figure is 0."""
    figures = pair(case, how)
    if figures is None:
        return None
    before, after = figures if how == "measured" or not case["more"] else figures[::-1]
    if before == after:
        return 1.0
    return math.inf if after == 0 else before / after


def short(case: Row, how: str) -> str:
    """The gain in a word; the two figures where one of them is 0."""
    figures, value = pair(case, how), gain(case, how)
    assert figures is not None
    assert value is not None
    if math.isinf(value) or value == 0:
        return " to ".join(shown(case["figure"], figure) for figure in figures)
    noise = how == "measured" and "beyond the noise" in str(timed(case))
    return (f"{value:.2f}" if value < 10 else f"{value:.1f}") + (" (noise)" if noise else "")


def judged(value: float) -> str:
    return "makes no difference here" if even(value) else "pays" if value > 1 else "does not pay here"


def counted(case: Row) -> str | None:
    """The verdict on the compiled programs."""
    figures, value = pair(case, "compiled"), gain(case, "compiled")
    if figures is None or value is None:
        return None
    before, after = (shown(case["figure"], figure) for figure in figures)
    factor = number(value if value > 1 else 1 / value) if value and not math.isinf(value) else ""
    if case["figure"] == "modelled_ms":
        if judged(value).startswith("makes"):
            return f"makes no difference here: {after} ms under the time model instead of {before}"
        speed = "fast" if value > 1 else "slow"
        return f"{judged(value)}: {factor} times as {speed} under the time model ({before} to {after} ms)"
    unit = _unit(case["unit"], after)
    if judged(value).startswith("makes"):
        return f"makes no difference here: {after} {unit} {'either way' if before == after else f'instead of {before}'}"
    if not factor:
        return f"{judged(value)}: {after} {unit} instead of {before}"
    grows, share = case["more"] == (value > 1), case["unit"].startswith("of ")
    many = ("times the" if share else "times as many") if grows else "times less" if share else "times fewer"
    return f"{judged(value)}: {factor} {many} {case['unit'].removeprefix('of ').removeprefix('the ')} ({before} to {after})"


def _unit(unit: str, amount: str) -> str:
    """What an amount counts: in the singular of one, and without "bytes" where the amount names KB, MB or GB."""
    if amount.endswith("B"):
        return unit.removeprefix("bytes ")
    first, rest = re.match(r"((?:load |busy |resident |atomic )?\w+)(.*)", unit).groups()  # type: ignore[union-attr]
    one = first.removesuffix("es") if first == "passes" else first.removesuffix("s")
    return one + rest if amount == "1" else unit


def timed(case: Row) -> str | None:
    """The verdict of the clock; a difference within the noise of either variant is none."""
    figures, value = pair(case, "measured"), gain(case, "measured")
    if figures is None or value is None:
        return None
    before, after = (case["variants"][case[role]]["measured"] for role in ("baseline", "better"))
    span = f"{number(figures[0] * 1e3)} to {number(figures[1] * 1e3)} ms"
    if touch(before, after):
        text = f"makes no difference beyond the noise ({span})"
    elif judged(value).startswith("makes"):
        text = f"makes no difference above 5% ({span})"
    else:
        speed = f"{number(value)} times as fast" if value > 1 else f"{number(1 / value)} times as slow"
        text = f"{judged(value)}: {speed} ({span})"
    best = fastest(case)
    return text if best is None else f"{text}; fastest: {best}"


def fastest(case: Row) -> str | None:
    """A third variant that is faster than both beyond the noise; None if there is none."""
    timed = {name: found["measured"] for name, found in case["variants"].items() if found.get("measured")}
    best = min(timed, key=lambda name: timed[name]["median"])
    beaten = [timed[case[role]]["p20"] > timed[best]["p80"] for role in ("baseline", "better")]
    return best if all(beaten) else None


def of(case: Row) -> dict[str, str | None]:
    return {"compiled": counted(case), "measured": timed(case)}


def judge(record: dict[str, Any]) -> dict[str, Any]:
    """The record with every case's verdicts as they follow from its figures."""
    for topic in record["topics"]:
        for case in topic["cases"]:
            case["verdicts"] = of(case)
    return record


def read(path: pathlib.Path) -> dict[str, Any]:
    """A result file of the guide, with the verdicts that follow from its figures.

    Raises:
      UserError: the file is not there, is damaged, or is no result file of the guide.
    """
    return judge(result.read(path, "guide"))
