"""Who won a comparison: a line per case, and sentences. What was measured, counted and modelled is said apart."""

from __future__ import annotations

import csv
import dataclasses
import pathlib
import statistics
import textwrap
from typing import Any

from experiments.comparison.cases import WHY
from experiments.measuring import verdict

Found = dict[str, Any]
WIDTH = 80  # of a terminal
OURS = "hand-written"
CPU_ONLY = "Only XLA's code was measured here: the hand-written kernels need a GPU; on a CPU they are compiled and executed."
OVER = (
    "A share marked 'over' is above 100%: a cache served part of the bytes, or the ceiling was measured while the machine was "
    "busy."
)


def side_of(contender: str) -> str:
    """Whose code a contender is: "XLA", "hand-written", or its own name."""
    return "XLA" if verdict.is_xla(contender) else OURS if contender in verdict.HAND_WRITTEN else contender


def sides(case: Found, clock: str) -> dict[str, Found]:
    """The figures of the fastest contender of each side, the fastest side first."""
    found: dict[str, Found] = {}
    for name, figures in sorted(case["contenders"].items(), key=lambda item: item[1].get(clock, float("inf"))):
        if clock in figures:
            found.setdefault(side_of(name), figures)
    return found


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A case's winner: the fastest side, "even" where the next one is within the noise, None where fewer than two ran.

    Attributes:
      ratio: the time of the next side over that of the fastest, 1 or above.
    """

    case: Found
    first: str | None
    second: str | None = None
    ratio: float = 1.0
    even: bool = False

    @property
    def winner(self) -> str | None:
        return "even" if self.even else self.first if self.second else None


def outcome(case: Found, clock: str) -> Outcome:
    """Who won a case by `clock`: "median" or "modelled_seconds"."""
    found = sides(case, clock)
    names = [*found, None, None][:2]
    if names[1] is None:
        return Outcome(case, names[0])
    fast, slow = (found[name] for name in names)  # type: ignore[index]
    ratio = slow[clock] / fast[clock]
    even = verdict.touch(fast, slow) if clock == "median" else verdict.even(ratio)
    return Outcome(case, names[0], names[1], ratio, even)


def line(case: Found, clock: str = "median") -> str:
    """A case in one line of at most 80 columns: its name, the winner, by how much, and the winner's time."""
    found = outcome(case, clock)
    first, second = ("ours" if name == OURS else name for name in (found.first, found.second))
    if found.first is None:
        reasons = [figures["failed"] for figures in case["contenders"].values()]
        said = f"failed: {reasons[0]}" if reasons else "nothing ran"
    else:
        time = f"{sides(case, clock)[found.first][clock] * 1e3:.4g} ms"
        if found.second is None:
            said = f"{first} alone, {time}"
        elif found.even:
            said = f"even: {first}, {second}, {time}"
        else:
            said = f"{first} {found.ratio:.2f}x vs {second}, {time}"
    said = said if len(said) <= 40 else said[:39] + "…"
    name, room = verdict.short(case["name"]), WIDTH - len(said) - 2
    return f"{name if len(name) <= room else name[: room - 1] + '…':<{room}}  {said}"


def _cases(count: int) -> str:
    return "1 case" if count == 1 else f"{count} cases"


def _span(ratios: list[tuple[float, str]]) -> str:
    """Median and extremes with the names of their cases."""
    low, high = min(ratios), max(ratios)
    middle = statistics.median(ratio for ratio, _ in ratios)
    if len(ratios) == 1:
        return f"{middle:.2f}"
    return f"median {middle:.2f}, from {low[0]:.2f} ({verdict.short(low[1])}) to {high[0]:.2f} ({verdict.short(high[1])})"


def _tally(wins: list[str], one: str, other: str) -> str:
    """How many cases each of two sides won."""
    who = "the hand-written kernels are" if one == OURS else f"{one} is"
    counts = [("", wins.count(one)), (f"{other} in ", wins.count(other)), ("no difference in ", wins.count("even"))]
    parts = [f"{said}{n}" for number, (said, n) in enumerate(counts) if n or number == 0]
    return f"{who} faster in {', '.join(parts)} of {_cases(len(wins))}"


def reasons(cases: list[Found]) -> str:
    """Why the hand-written kernels win: each operator's reason, once."""
    operators: dict[str, list[str]] = {}
    for case in cases:
        if case.get("operator") in WHY:
            operators.setdefault(WHY[case["operator"]], []).append(case["operator"])
    return " ".join(f"{', '.join(dict.fromkeys(names))}: {why}." for why, names in operators.items())


def measured(record: Found) -> list[str]:
    """Sentences on measured times: ours and each peer against XLA's code, and its shares of the floor."""
    duels, texts = verdict.duels(record), []
    where = f"Measured on {record['device']}"
    if duels:
        ratios = [(duel.ratio(), duel.case["name"]) for duel in duels]
        tally = _tally([duel.winner for duel in duels], OURS, "XLA")
        texts += [f"{where}: {tally}.", f"Speedup relative to XLA's code: {_span(ratios)}."]
        won = [duel.case for duel in duels if duel.winner == OURS]
        if won and (why := reasons(won)):
            texts.append(f"Why: {why}")
    elif any(sides(case, "median") for case in record["cases"]):
        texts.append(CPU_ONLY)
    peers = list(dict.fromkeys(name for case in record["cases"] for name in verdict.peers(case)))
    for peer in peers:
        wins, ratios = [], []
        for case in record["cases"]:
            xla = verdict.best(case["contenders"], "median", verdict.is_xla)
            if xla is not None and peer in verdict.peers(case):
                ratio = verdict.peers(case)[peer]
                even = verdict.touch(xla[1], case["contenders"][peer])
                wins.append("even" if even else peer if ratio > 1 else "XLA")
                ratios.append((ratio, case["name"]))
        texts.append(f"{where}: {_tally(wins, peer, 'XLA')}. Speedup of {peer} relative to XLA's code: {_span(ratios)}.")
    shares = [share for case in record["cases"] for share in [_share(case)] if share is not None]
    if shares:
        texts.append(
            f"XLA's code reaches a median of {min(1.0, statistics.median(shares)):.0%} of the speed that the machine's memory "
            "and arithmetic allow."
        )
        if max(shares) > 1:
            over = sum(share > 1 for share in shares)
            texts.append(f"{over} of {_cases(len(shares))} exceed{'s' * (over == 1)} it. {OVER}")
    return texts


def _share(case: Found) -> float | None:
    xla = verdict.best(case["contenders"], "median", verdict.is_xla)
    return None if xla is None else xla[1].get("floor_fraction")


def counted(record: Found) -> list[str]:
    """Sentences on compiled programs: bytes and kernels of XLA's code and of ours, and in which kind of work they differ."""
    duels = verdict.duels(record)
    if not duels:
        return [f"Compiled for {record['device']}: no case that both sides can run."]
    fewer = [duel for duel in duels if duel.ratio("bytes") >= verdict.EVEN]
    more = [duel for duel in duels if duel.ratio("bytes") <= 1 / verdict.EVEN]
    ratios = [(duel.ratio("bytes"), duel.case["name"]) for duel in duels]
    launches = statistics.median(duel.ratio("kernels") for duel in duels)
    kinds: dict[str, float] = {}
    for duel in duels:
        for sign, side in ((1, duel.xla), (-1, duel.hand)):
            for kind, of in side["kinds"].items():
                kinds[kind] = kinds.get(kind, 0.0) + sign * of["bytes"]
    largest = sorted((saved, kind) for kind, saved in kinds.items() if saved > 0)[:-4:-1]
    total = sum(duel.xla["bytes"] - duel.hand["bytes"] for duel in duels)
    even = len(duels) - len(fewer) - len(more)
    texts = [
        f"Compiled for {record['device']}, not run: the hand-written kernels transfer fewer bytes than XLA's code in "
        f"{len(fewer)} of {_cases(len(duels))}, more in {len(more)}, and equally many (within 5%) in {even}.",
        f"Bytes, XLA / ours: {_span(ratios)}. XLA launches {launches:.1f} times as many kernels (median).",
    ]
    if largest and total > 0:
        said = ", ".join(f"{kind} {saved / 1e9:,.3g} GB" for saved, kind in largest)
        texts.append(f"Why: summed over all cases, most bytes are saved in {said}.")
    return texts


def modelled(record: Found) -> list[str]:
    """A sentence on the times that the model gives the compiled programs."""
    duels = verdict.duels(record)
    if record["measured"] or not duels:
        return []
    ratios = [(duel.ratio(), duel.case["name"]) for duel in duels]
    tally = _tally([duel.winner for duel in duels], OURS, "XLA")
    return [f"Under the time model of {record['device']}, not measured: {tally}.", f"Modelled speedup: {_span(ratios)}."]


def closing(record: Found, compiled: Found | None) -> str:
    """The end of a run, at most 80 columns wide: who won; where only XLA's code ran, what was compiled for a GPU as well."""
    texts = sentences(record)
    if record["measured"] and compiled is not None and not verdict.duels(record):
        names = {case.get("operator", case.get("model")) for case in record["cases"]}
        same = [case for case in compiled["cases"] if case.get("operator", case.get("model")) in names]
        texts += sentences(compiled | {"cases": same}) if same else []
        if same and len(names) <= 3 and (why := reasons(same)):
            texts.append(f"Why: {why}")
    return "\n".join(textwrap.fill(text, WIDTH, break_long_words=False) for text in texts)


CSV = ("case", "dtype", "contender", "side", "median_ms", "p20_ms", "p80_ms", "speedup", "error", "failed", "how", "device")


def csv_rows(record: Found) -> list[dict[str, Any]]:
    """A row for each case and contender of a measured record; the speedup is over XLA's best form, or the first contender."""
    rows = []
    for case in record["cases"]:
        timed = {name: figures for name, figures in case["contenders"].items() if "median" in figures}
        xla = verdict.best(timed, "median", verdict.is_xla) or next(iter(timed.items()), None)
        for name, figures in case["contenders"].items():
            row: dict[str, Any] = {"case": case["name"], "dtype": case["dtype"], "contender": name, "side": side_of(name)}
            if name in timed and xla is not None:
                row |= {f"{key}_ms": figures[key] * 1e3 for key in ("median", "p20", "p80")}
                row |= {"speedup": xla[1]["median"] / figures["median"], "error": figures["error"]}
            rows.append(row | {"failed": figures.get("failed", ""), "how": record["how"], "device": record["device"]})
    return rows


def write_csv(record: Found, path: pathlib.Path) -> None:
    """The rows of `csv_rows` as a table for a spreadsheet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, CSV)
        writer.writeheader()
        writer.writerows(csv_rows(record))


def sentences(record: Found) -> list[str]:
    """All that a record says of who won."""
    return measured(record) if record["measured"] else [*counted(record), *modelled(record)]
