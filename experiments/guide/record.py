"""The result file of the guide: what is in it, how it is read, checked and written. Fields: docs/results.md."""

from __future__ import annotations

import pathlib
from typing import Any

from experiments.comparison import record as comparison
from experiments.comparison.record import NUMBER, OPTIONAL_NUMBER, Fields, check_fields
from experiments.errors import UserError
from experiments.guide import verdict

OPTIONAL_TEXT = (str, type(None))
RECORD: Fields = {
    "measured": (bool,),
    "experiment": (str,),
    "device": (str,),
    "versions": (dict,),
    "date": (str,),
    "commit": (str,),
    "clocks": (dict, type(None)),
    "protocol": (str,),
    "ceilings": (dict, type(None)),
    "topics": (list,),
}
TOPIC: Fields = {
    "topic": (str,),
    "source": (str,),
    "options": (dict,),
    "commit": (str,),
    "date": (str,),
    "seconds": NUMBER,
    "cases": (list,),
}
CASE: Fields = {
    "name": (str,),
    "kind": (str,),
    "dtype": (str,),
    "size": (list,),
    "baseline": (str,),
    "better": (str,),
    "figure": OPTIONAL_TEXT,
    "unit": (str,),
    "more": (bool,),
    "floor_seconds": OPTIONAL_NUMBER,
    "variants": (dict,),
    "verdicts": (dict,),
}
VARIANT: Fields = {"compiled": (dict, type(None)), "measured": (dict, type(None)), "failed": OPTIONAL_TEXT}
MEASURED: Fields = {
    "error": NUMBER,
    "median": NUMBER,
    "p20": NUMBER,
    "p80": NUMBER,
    "calls": (int,),
    "kernel_seconds": OPTIONAL_NUMBER,
    "floor_fraction": OPTIONAL_NUMBER,
}
VERDICTS: Fields = {"compiled": OPTIONAL_TEXT, "measured": OPTIONAL_TEXT}


def check(record: Any) -> None:
    """Raise a UserError that names the first field which is missing, too many, or of another type than it must be."""
    check_fields("result file", record, RECORD)
    if record["experiment"] != "guide":
        raise UserError(f"result file: experiment is {record['experiment']!r}, 'guide' is needed")
    for topic in record["topics"]:
        check_fields("topic", topic, TOPIC)
        for case in topic["cases"]:
            where = f"{topic['topic']}, {case.get('name')}"
            check_fields(where, case, CASE)
            check_fields(f"{where}, verdicts", case["verdicts"], VERDICTS)
            for name, variant in case["variants"].items():
                check_fields(f"{where}, {name}", variant, VARIANT)
                if variant["measured"] is not None:
                    check_fields(f"{where}, {name}, measured", variant["measured"], MEASURED)
                    if not record["measured"]:
                        raise UserError(f"{where}, {name}: a time in a file that says it was not measured")
                for figure, value in (variant["compiled"] or {}).items():
                    if not isinstance(value, NUMBER) or isinstance(value, bool):
                        raise UserError(f"{where}, {name}: {figure} is {value!r}, a number is needed")


def judge(record: dict[str, Any]) -> None:
    """Set every case's verdicts to what follows from its figures."""
    for topic in record["topics"]:
        for case in topic["cases"]:
            case["verdicts"] = verdict.of(case)


def read(path: pathlib.Path) -> dict[str, Any]:
    """A result file's content, in the form that `check` holds, with the verdicts that follow from its figures.

    Raises:
      UserError: the file is not there, is damaged, or is no result file of the guide.
    """
    record = comparison.read(path, check)
    judge(record)
    return record


def write(record: dict[str, Any], path: pathlib.Path) -> None:
    """Write the file with its verdicts, under the rules of a comparison's."""
    judge(record)
    comparison.write(record, path, check)
