"""What the page shows for each device: tables with their columns, bars and a roofline. Each table holds figures of one kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.comparison import conclusions, pictures
from experiments.measuring import verdict
from experiments.measuring.tables import where
from experiments.pages import executed

Found = dict[str, Any]
Section = dict[str, Any]
CASE = (("case", "text"), ("part", "text"), ("of", "text"), ("dtype", "text"))
# Of the record as it was compiled, by field: the head of the columns, what the figures are divided by, and their digits.
COUNTS = (("kernels", "kernels", 1.0, 0), ("bytes", "GB", 1e9, 3))


def _column(name: str, kind: str = "number", digits: int | None = None) -> dict[str, Any]:
    """A column; of numbers with significant digits, 0 for whole numbers."""
    return {"name": name, "kind": kind} | ({} if digits is None else {"digits": digits})


def _first(case: Found) -> list[Any]:
    """The cells that say which case a row is."""
    part = "operator" if "operator" in case else "training" if case["train"] else "inference"
    return [verdict.short(case["name"]), part, case.get("operator", case.get("model")), case["dtype"]]


def _section(how: str, title: str, about: str, records: Sequence[Found], columns: list, rows: list, **more: Any) -> Section:
    return {
        "how": how,
        "title": title,
        "about": about,
        "where": list(dict.fromkeys(where(record).strip() for record in records)),
        "columns": columns,
        "rows": rows,
        "group": "of" if any(column["name"] == "of" for column in columns) else None,
        "winner": "faster" if any(column["name"] == "faster" for column in columns) else None,
    } | more


def _named(winner: str | None) -> str:
    """A winner as the page's legend has it."""
    return {conclusions.OURS: "ours", None: ""}.get(winner, winner or "")


def _roofline(records: Sequence[Found]) -> dict[str, Any] | None:
    """The points of all records under the ceilings of the first; None where there is no point."""
    points = [
        [verdict.short(name), "ours" if side == conclusions.OURS else side, across, up]
        for record in records
        for name, side, across, up in pictures.roofline_points(record)
    ]
    if not points:
        return None
    bandwidth, peak = pictures.ceilings(records[0])
    return {"points": points, "bytes_per_second": bandwidth, "flops_per_second": peak}


def measured(records: Sequence[Found]) -> Section:
    """Times on the device: each side's in ms, and the speedups over XLA's code."""
    names = dict.fromkeys(name for record in records for case in record["cases"] for name in conclusions.sides(case, "median"))
    order = [name for name in ("XLA", conclusions.OURS) if name in names]
    order += [name for name in names if name not in order]
    columns = [_column(name, kind) for name, kind in CASE]
    columns += [_column(f"{_named(name)}, ms", digits=3) for name in order]
    rivals = [name for name in order if name != "XLA"]
    columns += [_column(f"{_named(name)} / XLA, speedup", digits=3) for name in rivals]
    columns += [_column("faster", "side"), _column("XLA's share of the floor, %", digits=2)]
    rows = []
    for record in records:
        for case in record["cases"]:
            found = conclusions.sides(case, "median")
            xla = found.get("XLA")
            row = _first(case) + [found[name]["median"] * 1e3 if name in found else None for name in order]
            row += [xla["median"] / found[name]["median"] if xla and name in found else None for name in rivals]
            fraction = None if xla is None else xla.get("floor_fraction")
            share = None if fraction is None else "over" if fraction > 1 else 100 * fraction
            rows.append([*row, _named(conclusions.outcome(case, "median").winner), share])
    bars = None
    if rivals:
        bars = {
            "column": f"{_named(rivals[0])} / XLA, speedup",
            "label": f"speedup of {_named(rivals[0])} relative to XLA's code",
        }
    about = (
        "Medians of alternating blocks; each result was checked first. 'even': the ranges from the 20th to the 80th percentile "
        f"touch. {conclusions.OVER}"
    )
    return _section("measured", "Times", about, records, columns, rows, bars=bars, roofline=_roofline(records))


def counted(records: Sequence[Found]) -> Section:
    """Counts from the compiled programs: kernels and bytes of both sides."""
    columns = [_column(name, kind) for name, kind in CASE]
    columns += [_column(f"{what}, {side}", digits=digits) for _, what, _, digits in COUNTS for side in ("XLA", "ours")]
    columns += [_column("bytes, XLA / ours", digits=3), _column("fewer bytes", "side")]
    rows = []
    for record in records:
        for duel in verdict.duels(record):
            row = _first(duel.case)
            row += [side[field] / unit for field, _, unit, _ in COUNTS for side in (duel.xla, duel.hand)]
            ratio = duel.ratio("bytes")
            rows.append([*row, ratio, "even" if verdict.even(ratio) else "ours" if ratio > 1 else "XLA"])
    about = "Counted in the programs that XLA and Triton compile for this device; nothing was run. 'even': within 5%."
    bars = {
        "column": "bytes, XLA / ours",
        "label": "bytes of XLA's code, divided by those of the hand-written kernels",
    }
    return _section("compiled", "Counts", about, records, columns, rows, bars=bars, roofline=None, winner="fewer bytes")


def modelled(records: Sequence[Found]) -> Section:
    """Times that the model gives the compiled programs."""
    columns = [_column(name, kind) for name, kind in CASE]
    columns += [_column(f"{side}, modelled ms", digits=3) for side in ("XLA", "ours")]
    columns += [_column("modelled speedup", digits=3), _column("faster", "side")]
    rows = [
        [
            *_first(duel.case),
            *(side["modelled_seconds"] * 1e3 for side in (duel.xla, duel.hand)),
            duel.ratio(),
            _named(duel.winner),
        ]
        for record in records
        for duel in verdict.duels(record)
    ]
    about = "A formula computes times from the counts: bytes at the memory's rate, products at the peak, launches; not timed."
    bars = {"column": "modelled speedup", "label": "modelled speedup of the hand-written kernels"}
    return _section("modelled", "Modelled times", about, records, columns, rows, bars=bars, roofline=_roofline(records))


def launches(record: Found) -> Section:
    """What the hand-written kernels take of a multiprocessor, as compiled."""
    names = ("case", "of", "kernel")
    columns = [_column(name, "text") for name in names]
    columns += [_column(name, digits=0) for name in ("blocks", "resident blocks", "threads", "registers", "spilled bytes")]
    columns += [_column("shared memory, KB", digits=3)]
    rows = [
        [row["name"], row["operator"], launch["kernel"]]
        + [launch[field] for field in ("blocks", "resident_blocks", "threads", "registers", "spilled")]
        + [launch["shared_memory"] / 1024]
        for row in record["rows"]
        for launch in row.get("launches", ())
    ]
    about = "Registers are per thread, shared memory per block. Counted in machine code; nothing was run."
    return _section("compiled", "Registers and shared memory", about, [record], columns, rows, bars=None, roofline=None)


def choices(record: Found) -> Section:
    """Bytes of XLA's code and of the kernels at one shape of each operator, as compiled for a GPU."""
    columns = [_column(name, "text") for name in ("case", "of", "chosen after check")]
    columns += [_column(f"{what}, {side}", digits=digits) for _, what, _, digits in COUNTS for side in ("XLA", "ours")]
    columns += [_column("bytes, XLA / ours", digits=3), _column("fewer bytes", "side")]
    rows = []
    for row in record["rows"]:
        if row.get("ours") and row.get("xla"):
            ratio = row["xla"]["bytes"] / row["ours"]["bytes"]
            counts = [side[field] / unit for field, _, unit, _ in COUNTS for side in (row["xla"], row["ours"])]
            fewer = "even" if verdict.even(ratio) else "ours" if ratio > 1 else "XLA"
            rows.append([row["name"], row["operator"], row["checked"], *counts, ratio, fewer])
    about = "One shape of each operator, forward and backward, in bfloat16. Counted in compiled programs; nothing was run."
    bars = {
        "column": "bytes, XLA / ours",
        "label": "bytes of XLA's code, divided by those of the hand-written kernels",
    }
    return _section("compiled", "Counts", about, [record], columns, rows, bars=bars, roofline=None, winner="fewer bytes")


def executed_operators(records: Sequence[Found]) -> Section:
    """What of the compiled kernels was executed on a CPU, and what was found."""
    header, rows = executed.executed(records)
    columns = [_column("of", "text"), _column("architecture", "text")]
    columns += [_column(name.lstrip(">"), digits=2 if "error" in name else 0) for name in header[2:]]
    cells = [[*row[:2], *(float(cell.replace(",", "")) if cell else None for cell in row[2:])] for row in rows]
    about = "The PTX of each kernel, run instruction by instruction on a CPU. This shows correctness, never speed."
    return _section("executed", "Operators", about, records, columns, cells, bars=None, roofline=None)
