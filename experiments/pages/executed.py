"""What was executed of the compiled kernels, and which faults are found: from the result files in results/ptx/."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.measuring.tables import Table, markdown
from kernels.commands.dtypes import DTYPES

Found = dict[str, Any]
COUNTS = {"races": "races", "out_of_bounds": "out of bounds", "unwritten": "unwritten"}
NOTHING = "Nothing was executed yet: `python -m experiments.execute` writes the result file.\n"


def _kernels(rows: Sequence[Found]) -> list[Found]:
    return [kernel for row in rows for kernel in row["kernels"]]


def _total(rows: Sequence[Found], field: str) -> int:
    return sum(kernel[field] for kernel in _kernels(rows))


def _wrong(row: Found) -> bool:
    return bool(row["faults"] or any(kernel["faults"] for kernel in row["kernels"]))


def executed(records: Sequence[Found]) -> Table:
    """A row for each operator and architecture; of errors the worst of all cases."""
    header = ["operator", "architecture", ">cases", ">launches", ">blocks", ">instructions"]
    header += [*(f">error, {dtype}" for dtype in DTYPES), *(f">{name}" for name in COUNTS.values()), ">wrong"]
    rows = []
    for operator in sorted({row["operator"] for record in records for row in record["cases"]}):
        for record in records:
            mine = [row for row in record["cases"] if row["operator"] == operator and row["refused"] is None]
            errors = [[row["error"] for row in mine if row["dtype"] == d and row["error"] is not None] for d in DTYPES]
            cells = [str(len(mine)), *(f"{_total(mine, field):,}" for field in ("launches", "blocks", "instructions"))]
            cells += [f"{max(of):.1e}" if of else "" for of in errors]
            cells += [str(_total(mine, field)) for field in COUNTS]
            rows.append([operator, record["device"], *cells, str(sum(map(_wrong, mine)))])
    return header, rows


def refused(records: Sequence[Found]) -> str:
    """What was not executed, since Triton or the GPU's limits refuse it."""
    lines = [
        f"- {row['name']}, {record['device']}: {_reason(row['refused'])}\n"
        for record in records
        for row in record["cases"]
        if row["refused"] is not None
    ]
    return f"\nNot executed, because they do not run on that architecture:\n\n{''.join(lines)}" if lines else ""


def _reason(message: str) -> str:
    """Of an operator's list of reasons, that of the kernels."""
    _, found, rest = message.partition("interpret: ")
    return rest.partition("; ")[0].rstrip(")") if found else message


def under(records: Sequence[Found]) -> str:
    """The line under the tables: by what, and when."""
    first = records[0]
    versions = ", ".join(f"{name} {first['versions'][name]}" for name in ("triton", "jax") if name in first["versions"])
    return f"Executed on a CPU, not timed: {' and '.join(r['device'] for r in records)}, {versions}, {first['date']}.\n"


def _seen(records: Sequence[Found]) -> dict[str, list[Found]]:
    kinds: dict[str, list[Found]] = {}
    for record in records:
        for kernel in _kernels(record["cases"]):
            for kind, seen in kernel["kinds"].items():
                kinds.setdefault(kind, []).append(seen)
    return kinds


def _added(counts: Sequence[dict[str, int]]) -> str:
    total: dict[str, int] = {}
    for of in counts:
        for what, n in of.items():
            total[what] = total.get(what, 0) + n
    return ", ".join(f"{n} {what}" for what, n in sorted(total.items(), key=lambda item: -item[1]))


def faults(records: Sequence[Found]) -> Table:
    """A row for each kind of fault, of all kernels and architectures; a fault may be found by several signs."""
    rows = []
    for kind, seen in _seen(records).items():
        numbers = (sum(s["tried"] for s in seen), sum(s["found"] for s in seen))
        hidden = _added([s["cannot_show"] for s in seen])
        rows.append(
            [kind, *map(str, numbers), _added([s["how"] for s in seen]), hidden, str(sum(len(s["missed"]) for s in seen))]
        )
    return ["fault", ">injected", ">found", "by", "no effect: why", ">missed"], rows


def page(records: Sequence[Found], seeded: Sequence[Found]) -> str:
    """Both tables, and what is not in them."""
    if not records:
        return NOTHING
    text = markdown(*executed(records)) + under(records) + refused(records)
    return text + ("\n" + markdown(*faults(seeded)) + under(seeded) if seeded else "")


def sentence(records: Sequence[Found], seeded: Sequence[Found]) -> str:
    """For the README: what was executed, what was found, what it cannot know."""
    if not records:
        return NOTHING
    rows = [row for record in records for row in record["cases"]]
    found = ", ".join(f"{_total(rows, field) or 'no'} {name}" for field, name in (("races", "races"),))
    found += f", {_total(rows, 'out_of_bounds') or 'no'} out-of-bounds accesses"
    found += f", {_total(rows, 'unwritten') or 'no'} reads of unwritten memory"
    where = " and ".join(record["device"] for record in records)
    text = (
        f"The compiled code of every Triton kernel was executed on a CPU, instruction by instruction: {len(rows):,} cases "
        f"for {where}, {_total(rows, 'launches'):,} launches, {_total(rows, 'instructions') / 1e6:.1f} million instructions; "
        f"{found}; {sum(map(_wrong, rows)) or 'no'} wrong results.\n"
    )
    if seeded:
        seen = [s for of in _seen(seeded).values() for s in of]
        tried, showed = sum(s["tried"] for s in seen), sum(s["found"] for s in seen)
        missed = sum(len(s["missed"]) for s in seen)
        text += (
            f"Of {tried:,} faults injected into the code, {showed:,} were found, {tried - showed - missed} have no effect in "
            f"these launches, and {missed or 'none'} {'were' if missed != 1 else 'was'} missed.\n"
        )
    return text + (
        "Execution cannot show how long anything takes, in which order a GPU makes unordered writes visible, or what the "
        "assembler changes ([docs/kernels.md](docs/kernels.md)).\n"
    )
