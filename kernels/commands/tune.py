"""python -m kernels tune [OPERATOR ...] [--minutes N]: which implementation and which block sizes are fastest on this device?

Times every implementation of an operator (XLA's forms, cuDNN, the hand-written kernels) with each of its candidates, forward
and backward, at shapes taken from models. One that gives wrong results is excluded and named. The fastest go into the user's
cache, where `implementation=None` finds them. What the cache holds from the same sources and versions is not measured again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console

from kernels.commands import check, processes
from kernels.commands.cases import LARGE
from kernels.commands.measure import Found, remember
from kernels.runtime import dispatch, measured

DTYPES = ("bfloat16", "float32")


def main(
    operators: Sequence[str],
    minutes: float,
    limit: float,
    console: Console,
    command: Callable[..., Sequence[str]] = processes.worker,
) -> int:
    """The command. Its status is 0 where everything chosen was measured or there was no time left for it."""
    deadline = time.monotonic() + 60 * minutes
    here = check.describe(limit, command)
    jobs = [(n, dtype) for dtype in DTYPES for n, case in enumerate(LARGE) if not operators or case.operator in operators]
    runs = {
        operator: [n for n, reason in found.items() if reason is None and n not in dispatch.ON_HOST]
        for operator, found in here.available.items()
    }
    if not any(len(names) > 1 for names in runs.values()):
        reason = here.available["max_pool"]["triton"]
        console.print(f"nothing to measure: only XLA runs here ({reason})", style="bold red", soft_wrap=True)
        return 1
    done = measured.read(measured.path(here.device.kind), here.device).get("done", {})
    faults, left, longest = 0, list(jobs), 0.0
    while left:
        number, dtype = left[0]
        case, begun = LARGE[number], time.monotonic()
        name = f"{case.operator} {case.name}, {dtype}"
        stamp = {"source": measured.source(case.operator), "versions": here.versions}
        if done.get(name) == stamp:
            left.pop(0)
            continue
        if begun + longest > deadline:
            break
        left.pop(0)
        said: list[dict[str, Any]] = []
        end = processes.run(command("tune", str(number), dtype), limit, said.append)
        longest = max(longest, time.monotonic() - begun)
        if end.verdict is not None or not said:
            faults += 1
            console.print(f"{name}: {end.verdict or 'nothing was said'}: {end.reason}", style="bold red", soft_wrap=True)
            continue
        found = Found(**said[-1])
        console.print(str(found), soft_wrap=True, markup=False, highlight=False)
        try:
            remember(here.device, found.entries, stamp, done=name)
        except OSError as error:
            reason = f"cannot be written: {error}; {measured.VARIABLE} names another folder"
            console.print(f"{measured.path(here.device.kind)}: {reason}", style="bold red", soft_wrap=True)
            return 1
    console.print(f"written: {measured.path(here.device.kind)}", soft_wrap=True)
    if left:
        console.print(f"stopped for time; {len(left)} cases are left; the same command resumes")
    return 1 if faults else 0
