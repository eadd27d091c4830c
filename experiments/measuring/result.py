"""The result file: its schema, and how it is read, checked and written. docs/results.md explains the fields."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from experiments.errors import UserError
from experiments.measuring import machine
from kernels.runtime import dispatch
from kernels.runtime.files import put_in_place

RESULTS = pathlib.Path(__file__).parents[1] / "results"
HOW = ("measured", "compiled", "executed")

# A schema is a type, None for null, alternatives as a tuple, [schema] for a list, {str: schema} for an object with any names,
# or an object with exactly these fields.
Schema = Any
NUMBER = (int, float)
PERHAPS: Schema = (*NUMBER, None)
HEADER: dict[str, Schema] = {
    "measured": bool,
    "how": str,
    "experiment": str,
    "device": str,
    "versions": {str: str},
    "date": str,
}
WORK: dict[str, Schema] = {"bytes": PERHAPS, "flops": PERHAPS, "floor_seconds": PERHAPS}
ROW: dict[str, Schema] = {"source": str, "options": {str: object}, "commit": str, "date": str, "seconds": NUMBER}
CEILINGS: dict[str, Schema] = {"bytes_per_second": NUMBER, "flops_per_second": NUMBER}
CLOCK: dict[str, Schema] = {
    "error": NUMBER, "median": NUMBER, "p20": NUMBER, "p80": NUMBER, "calls": int, "kernel_seconds": PERHAPS,
    "floor_fraction": PERHAPS,
}  # fmt: skip
TIMED: dict[str, Schema] = {**CLOCK, "bytes_per_second": PERHAPS, "flops_per_second": PERHAPS}
FAILED: dict[str, Schema] = {"failed": str}
COUNTED: dict[str, Schema] = {
    "kernels": int, "hand_written": int, "bytes": int, "flops": NUMBER, "floor_seconds": NUMBER, "modelled_seconds": NUMBER,
    "temporary_bytes": (int, None), "spilled_bytes": (int, None), "kinds": {str: {"kernels": int, "bytes": int}},
}  # fmt: skip
OPERATOR: dict[str, Schema] = {"operator": str}
MODEL: dict[str, Schema] = {"model": str, "train": bool, "examples": int}
CASE: dict[str, Schema] = {"name": str, "dtype": str, **WORK, **ROW}
COMPARED: dict[str, Schema] = {
    **HEADER, "commit": str, "clocks": ({str: NUMBER}, None), "dtype": str, "protocol": str, "ceilings": CEILINGS,
}  # fmt: skip
COMPILED: dict[str, Schema] = {
    **HEADER, "commit": str, "protocol": str,
    "model": {"bytes_per_second": NUMBER, "flops_per_second": {str: NUMBER}, "seconds_per_launch": NUMBER},
}  # fmt: skip
GUIDE_CASE: dict[str, Schema] = {
    "name": str, "kind": str, "dtype": str, "size": [int], "baseline": str, "better": str, "figure": (str, None), "unit": str,
    "more": bool, "floor_seconds": PERHAPS, "verdicts": {"compiled": (str, None), "measured": (str, None)},
    "variants": {str: {"compiled": ({str: NUMBER}, None), "measured": (CLOCK, None), "failed": (str, None)}},
}  # fmt: skip
GUIDE: dict[str, Schema] = {
    **HEADER, "commit": str, "clocks": ({str: NUMBER}, None), "protocol": str, "ceilings": (CEILINGS, None),
    "topics": [{"topic": str, **ROW, "cases": [GUIDE_CASE]}],
}  # fmt: skip
EXECUTED_KERNEL: dict[str, Schema] = {
    "kernel": str, "launches": int, "blocks": int, "threads": int, "instructions": int, "difference": PERHAPS, "races": int,
    "out_of_bounds": int, "unwritten": int, "faults": [str], "seconds": NUMBER,
}  # fmt: skip
EXECUTED: dict[str, Schema] = {
    **HEADER, "commit": str, "protocol": str,
    "cases": [
        {
            "name": str, "operator": str, "group": str, "dtype": str, **ROW, "error": PERHAPS, "tolerance": PERHAPS,
            "refused": (str, None), "faults": [str], "kernels": [EXECUTED_KERNEL],
        },
    ],
}  # fmt: skip
FAULTS_OF_KIND: dict[str, Schema] = {
    "places": int, "tried": int, "found": int, "how": {str: int}, "cannot_show": {str: int}, "missed": [str],
}  # fmt: skip
FAULTS: dict[str, Schema] = {
    **HEADER, "commit": str, "protocol": str,
    "cases": [
        {
            "name": str, "operator": str, "dtype": str, **ROW,
            "kernels": [{"kernel": str, "kinds": {str: FAULTS_OF_KIND}}],
        },
    ],
}  # fmt: skip


def _cases(work: dict[str, Schema], figures: dict[str, Schema]) -> list[Schema]:
    return [{**CASE, **work, "contenders": {str: (figures, FAILED)}}]


# By the field "experiment"; of other experiments, the scripts of benchmarks/, only the header is laid down.
SCHEMAS: dict[str, dict[str, Schema]] = {
    "operators": {**COMPARED, "cases": _cases(OPERATOR, TIMED)},
    "models": {**COMPARED, "cases": _cases(MODEL, TIMED)},
    "compiled-operators": {**COMPILED, "cases": _cases({**OPERATOR, "seconds": PERHAPS}, COUNTED)},
    "compiled-models": {**COMPILED, "cases": _cases({**MODEL, "seconds": PERHAPS}, COUNTED)},
    "guide": GUIDE,
    "ptx": EXECUTED,
    "ptx-faults": FAULTS,
}


def check_fields(where: str, found: Any, schema: Schema) -> None:
    """Raise a UserError that names the first value which `schema` does not allow."""
    alternatives = schema if isinstance(schema, tuple) else (schema,)
    objects = [s for s in alternatives if isinstance(s, dict)]
    if objects and isinstance(found, dict):
        fields = max(objects, key=lambda s: len(s.keys() & found.keys()))
        if str in fields:
            fields = dict.fromkeys(found, fields[str])
        for name in (*fields, *found):
            if name not in found:
                raise UserError(f"{where}: {name} is missing")
            if name not in fields:
                raise UserError(f"{where}: {name} is not one of {', '.join(fields)}")
            check_fields(f"{where}: {name}", found[name], fields[name])
    elif isinstance(found, list) and isinstance(alternatives[0], list):
        for number, value in enumerate(found):
            named = value if isinstance(value, dict) else {}
            check_fields(f"{where} {named.get('name', named.get('topic', number))!r}", value, alternatives[0][0])
    else:
        kinds = tuple(type(None) if s is None else s for s in alternatives if s is None or isinstance(s, type))
        if not isinstance(found, kinds) or (isinstance(found, bool) and bool not in kinds and object not in kinds):
            names = {type(None): "null"} | {kind: kind.__name__ for kind in kinds if kind is not type(None)}
            needed = [names[kind] for kind in kinds] + ["an object"] * bool(objects)
            needed += ["a list"] * any(isinstance(s, list) for s in alternatives)
            raise UserError(f"{where} is {found!r:.60}, {' or '.join(needed)} is needed")


def check(record: Any) -> None:
    """Raise a UserError that names the first field which is missing, too many, or of another type than it must be."""
    if not isinstance(record, dict):
        raise UserError(f"result file: {type(record).__name__} given, an object is needed")
    schema = SCHEMAS.get(str(record.get("experiment")))
    head = {name: record[name] for name in HEADER if name in record}
    check_fields("result file", record if schema else head, schema or HEADER)
    if record["how"] not in HOW or record["measured"] != (record["how"] == "measured"):
        raise UserError(
            f"result file: how is {record['how']!r} where measured is {record['measured']}; one of {', '.join(HOW)}"
        )
    for topic in record["topics"] if schema is GUIDE and not record["measured"] else ():
        for case in topic["cases"]:
            for name, variant in case["variants"].items():
                if variant["measured"] is not None:
                    raise UserError(f"{case['name']}, {name}: a time in a file that says it was not measured")


def read(path: pathlib.Path, *experiments: str) -> dict[str, Any]:
    """A result file's content; of one of `experiments` where any are named.

    Raises:
      UserError: the file is not there, is damaged, or is no such result file.
    """
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"result file: {path} does not exist") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"result file: {path} is damaged ({error})") from error
    try:
        check(record)
        if experiments and record["experiment"] not in experiments:
            raise UserError(f"result file: experiment is {record['experiment']!r}, {' or '.join(experiments)} is needed")
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return record


def load(name: str, device: str = "cpu") -> dict[str, Any]:
    """The content of experiments/results/<device>/<name>.json."""
    return read(RESULTS / device / f"{name}.json")


def earlier(path: pathlib.Path) -> dict[str, Any] | None:
    """The content of the result file; None if there is none, or if it cannot be continued, which is printed."""
    if not path.exists():
        return None
    try:
        return read(path)
    except UserError as error:
        print(f"{error}; everything is done again")
        return None


def write_json(path: pathlib.Path, value: Any, indent: int = 1) -> None:
    """Write whole or not at all: a program that is killed leaves the file as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".partial")
    beside.write_text(json.dumps(value, indent=indent) + "\n")
    put_in_place(beside, path)


def write(record: dict[str, Any], path: pathlib.Path) -> None:
    """Write the file as a whole or not at all. What was only compiled never takes the place of what was measured."""
    check(record)
    if path.exists() and not record["measured"] and read(path)["measured"]:
        raise UserError(f"result file: {path} was measured, and is not written over by what was only {record['how']}")
    write_json(path, record)


def begun(experiment: str, how: str, where: dict[str, Any]) -> dict[str, Any]:
    """The header of a record; `where` is what `machine.surroundings` or `machine.compiled_for` says."""
    return {"measured": how == "measured", "how": how, "experiment": experiment} | where


def kept(experiment: str, field: str) -> dict[str, Any]:
    """A field of the result file that an earlier run of a script on this kind of device wrote; empty if there is none."""
    path = RESULTS / dispatch.device().kind / f"{experiment}.json"
    return read(path)[field] if path.exists() else {}


def save(experiment: str, content: dict[str, Any], device: str | None = None) -> pathlib.Path:
    """Write what a script measured here, or counted in programs compiled for a device, to experiments/results/."""
    where = machine.surroundings() if device is None else machine.compiled_for(device)
    path = RESULTS / (device or dispatch.device().kind) / f"{experiment}.json"
    write(begun(experiment, "compiled" if device else "measured", where) | content, path)
    return path


def same_conditions(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether rows of both may be in one file: same device and versions."""
    return all(old[name] == new[name] for name in ("measured", "experiment", "device", "versions"))
