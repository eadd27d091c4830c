"""python -m kernels list [OPERATOR ...]: what is available on this device, what is chosen, and why."""

from __future__ import annotations

import collections
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from kernels.runtime import devices, dispatch, measured


def main(operators: Sequence[str], console: Console) -> int:
    """The command."""
    here = devices.device()
    console.print(f"{here.kind}: {here.cores or 'no'} multiprocessors, {here.l2_cache / 2**20:g} MiB of L2 cache")
    for name in dispatch.NAMES:
        if (reason := dispatch.device_reason(name)) is not None:
            console.print(f"  {name} does not run here: {reason}", soft_wrap=True)
    shown = Table(box=box.SIMPLE_HEAD)
    for heading in ("operator", "taken by itself", "why no other", "by name", "fastest where measured"):
        shown.add_column(heading, overflow="fold", no_wrap=heading == "operator")
    for operator in operators or dispatch.operators():
        chosen, reasons = dispatch.by_itself(operator)
        runs = [name for name, reason in dispatch.available(operator).items() if reason is None]
        why = (f"{name}: {reason}" for name, reason in reasons.items() if name in runs)
        entries = measured.tuned(here).get(operator, {}).values()
        fastest = collections.Counter(entry["implementation"] for entry in entries if "implementation" in entry)
        won = ", ".join(f"{name} at {count}" for name, count in fastest.most_common())
        shown.add_row(operator, chosen, "; ".join(why), ", ".join(n for n in runs if n != chosen), won)
    console.print(shown)
    console.print(f"measured: {measured.path(here.kind)}, and what is shipped in {measured.SHIPPED}", soft_wrap=True)
    return 0
