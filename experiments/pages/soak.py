"""The soak of training runs: what was done to them, and how they ended."""

from __future__ import annotations

from typing import Any

from experiments.measuring.tables import Table

Found = dict[str, Any]


def summary(found: Found) -> str:
    """What came of it, in a sentence."""
    cases = found["cases"].values()
    runs, equal = (sum(case[name] for case in cases) for name in ("runs", "equal"))
    done = sum(cell["injected"] for case in cases for cell in case["faults"].values())
    findings = len(found["findings"])
    said = f"{findings} finding{'s' * (findings != 1)}, listed in the file" if findings else "no findings"
    return (
        f"{done} faults in {runs} runs and {found['seconds'] / 60:.0f} minutes (seed {found['seed']}): {equal} of {runs} ended "
        f"with the parameters of an undisturbed run; {said}.\n"
    )


def faults(found: Found) -> Table:
    """Header and rows: how often each kind of fault was injected, by case; in brackets how many of these ended otherwise."""
    header = ["fault"]
    for case in found["cases"].values():
        count = case["processes"]
        header.append(f">`{case['model']}`" + (f", {count} processes" if count > 1 else ""))
    rows = []
    for kind in dict.fromkeys(kind for case in found["cases"].values() for kind in case["faults"]):
        row = [kind]
        for case in found["cases"].values():
            cell = case["faults"].get(kind, {"injected": 0, "equal": 0})
            other = cell["injected"] - cell["equal"]
            row.append(f"{cell['injected']}" + (f" ({other})" if other else ""))
        rows.append(row)
    rows.append(["runs", *(str(case["runs"]) for case in found["cases"].values())])
    return header, rows
