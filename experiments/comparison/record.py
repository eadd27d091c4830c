"""The result file of a comparison: what is in it, how it is read, checked, shown and written. Fields: docs/results.md."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from experiments.errors import UserError

NUMBER, OPTIONAL_NUMBER = (int, float), (int, float, type(None))
Fields = Mapping[str, tuple[type, ...]]
RECORD: Fields = {
    "measured": (bool,),
    "experiment": (str,),
    "device": (str,),
    "versions": (dict,),
    "date": (str,),
    "commit": (str,),
    "clocks": (dict, type(None)),
    "dtype": (str,),
    "protocol": (str,),
    "ceilings": (dict,),
    "cases": (list,),
}
CEILINGS: Fields = {"bytes_per_second": NUMBER, "flops_per_second": NUMBER}
CASE: Fields = {
    "name": (str,),
    "dtype": (str,),
    "bytes": OPTIONAL_NUMBER,
    "flops": OPTIONAL_NUMBER,
    "floor_seconds": OPTIONAL_NUMBER,
    "options": (dict,),
    "source": (str,),
    "commit": (str,),
    "date": (str,),
    "seconds": NUMBER,
    "contenders": (dict,),
}
OPERATOR: Fields = {"operator": (str,)}
MODEL: Fields = {"model": (str,), "train": (bool,), "examples": (int,)}
TIMED: Fields = {
    "error": NUMBER,
    "median": NUMBER,
    "p20": NUMBER,
    "p80": NUMBER,
    "calls": (int,),
    "kernel_seconds": OPTIONAL_NUMBER,
    "floor_fraction": OPTIONAL_NUMBER,
    "bytes_per_second": OPTIONAL_NUMBER,
    "flops_per_second": OPTIONAL_NUMBER,
}
FAILED: Fields = {"failed": (str,)}


def check_fields(where: str, found: Any, fields: Fields) -> None:
    if not isinstance(found, dict):
        raise UserError(f"{where}: {type(found).__name__} given, an object is needed")
    for name in (*fields, *found):
        if name not in found:
            raise UserError(f"{where}: {name} is missing")
        if name not in fields:
            raise UserError(f"{where}: {name} is not one of {', '.join(fields)}")
        value, allowed = found[name], fields[name]
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            needed = " or ".join("null" if kind is type(None) else kind.__name__ for kind in allowed)
            raise UserError(f"{where}: {name} is {value!r}, {needed} is needed")


def check(record: Any) -> None:
    """Raise a UserError that names the first field which is missing, too many, or of another type than it must be."""
    check_fields("result file", record, RECORD)
    check_fields("ceilings", record["ceilings"], CEILINGS)
    kinds = {"operators": OPERATOR, "models": MODEL}
    if record["experiment"] not in kinds:
        raise UserError(f"result file: experiment is {record['experiment']!r}, {' or '.join(kinds)} is needed")
    for row in record["cases"]:
        where = f"case {row.get('name')!r}" if isinstance(row, dict) else "case"
        check_fields(where, row, {**CASE, **kinds[record["experiment"]]})
        for name, figures in row["contenders"].items():
            timed = isinstance(figures, dict) and "failed" not in figures
            check_fields(f"{where}, {name}", figures, TIMED if timed else FAILED)


def read(path: pathlib.Path, check: Callable[[Any], None] = check) -> dict[str, Any]:
    """A result file's content, in the form that `check` holds: a comparison's, if not given.

    Raises:
      UserError: the file is not there, is damaged, or is no such result file.
    """
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"result file: {path} does not exist") from error
    except ValueError as error:
        raise UserError(f"result file: {path} is damaged ({error})") from error
    try:
        check(record)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return record


def earlier(path: pathlib.Path, read: Callable[[pathlib.Path], dict[str, Any]] = read) -> dict[str, Any] | None:
    """What stands in the result file; None where there is none, or one that cannot be gone on with, which is said."""
    if not path.exists():
        return None
    try:
        return read(path)
    except UserError as error:
        print(f"{error}; everything is done again")
        return None


def write(record: dict[str, Any], path: pathlib.Path, check: Callable[[Any], None] = check) -> None:
    """Write the file as a whole or not at all. What was only compiled never takes the place of what was measured."""
    check(record)
    if path.exists() and not record["measured"] and read(path, check)["measured"]:
        raise UserError(f"result file: {path} was measured, and is not written over by what was only compiled")
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(beside, path)


def same_conditions(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Rows of both may stand in one file: the same device and versions."""
    return all(old[name] == new[name] for name in ("measured", "experiment", "device", "versions"))


def is_current(row: dict[str, Any], options: dict[str, Any], source: str) -> bool:
    """The row need not be measured again: the same sources, precision, peers and protocol."""
    return row["source"] == source and row["options"] == options


def regressions(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Cases whose new p20 is above the old p80 by a twentieth or more, slower beyond the noise of either run; and failures."""
    found = []
    before = {(c["name"], n): f for c in old["cases"] for n, f in c["contenders"].items() if "median" in f}
    for case in new["cases"]:
        for name, figures in case["contenders"].items():
            was = before.get((case["name"], name))
            if was is None:
                continue
            if "median" not in figures:
                found.append(f"{case['name']}, {name}: {figures['failed']}")
            elif figures["p20"] > 1.05 * was["p80"]:
                found.append(
                    f"{case['name']}, {name}: {was['median'] * 1e3:.3f} ms before, {figures['median'] * 1e3:.3f} ms now"
                )
    return found


def markdown(record: dict[str, Any]) -> str:
    """A table: a row for each case and contender, the fastest in bold, failures with their reason."""
    how = "measured" if record["measured"] else "compiled, not run"
    lines = [
        f"{record['experiment'].capitalize()} on {record['device']} ({how}), jax {record['versions']['jax']}, "
        f"{record['date']}, commit {record['commit']}. {record['protocol']}. `over XLA`: as fast as XLA at 1, slower below.",
        "",
        "| case | dtype | contender | median ms | p20 to p80 | kernels ms | over XLA | of the floor | GB/s | GFLOP/s | error |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case in record["cases"]:
        timed = {name: f["median"] for name, f in case["contenders"].items() if "median" in f}
        label = case["name"] + (f" (commit {case['commit']})" if case["commit"] != record["commit"] else "")
        for name, f in case["contenders"].items():
            begin = f"| {label} | {case['dtype']} |"
            if "median" not in f:
                lines.append(f"{begin} {name} | {f['failed'].replace('|', '/')} | | | | | | | |")
                continue
            shown = f"**{name}**" if f["median"] == min(timed.values()) else name
            cells = [
                f"{f['median'] * 1e3:.3f}",
                f"{f['p20'] * 1e3:.3f} to {f['p80'] * 1e3:.3f}",
                _shown(f["kernel_seconds"], 1e3, ".3f"),
                f"{timed['xla'] / f['median']:.2f}" if "xla" in timed else "",
                _shown(f["floor_fraction"], 1, ".0%"),
                _shown(f["bytes_per_second"], 1e-9, ".1f"),
                _shown(f["flops_per_second"], 1e-9, ".1f"),
                f"{f['error']:.1e}",
            ]
            lines.append(f"{begin} {shown} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _shown(value: float | None, factor: float, form: str) -> str:
    return "" if value is None else format(value * factor, form)
