"""The process that `check` and `tune` start: kernels.commands.worker describe | check OPERATOR IMPLEMENTATION | tune NUMBER
DTYPE.

Only it touches the device. It reports in lines of JSON on standard output, one as soon as each part is done.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Callable
from typing import Any

import jax

from kernels.commands import cases, comparison, measure
from kernels.commands.dtypes import DTYPES
from kernels.runtime import devices, dispatch
from kernels.verification import aot, residency


def say(**content: Any) -> None:
    print(json.dumps(content), flush=True)


def versions() -> dict[str, str]:
    """Of the packages that decide what a kernel is compiled to."""
    return {
        name: importlib.metadata.version(name)
        for name in ("jax", "jaxlib", "triton", "jax-triton")
        if importlib.util.find_spec(name.replace("-", "_")) is not None
    }


def describe() -> None:
    """The device, and which implementations of which operator run there."""
    say(device=dataclasses.asdict(devices.device()), versions=versions())
    for operator in dispatch.operators():
        say(operator=operator, available=dispatch.available(operator))


def check(operator: str, implementation: str) -> None:
    """Every case of the operator in every dtype: "error" where it is right, else "wrong" or "refused"."""
    refusals = (dispatch.ImplementationError, aot.CompilationError, residency.NotResidentError)
    chosen = cases.to_check(operator, devices.device().platform == "cuda" and implementation not in dispatch.ON_HOST)
    for dtype in DTYPES:
        for case in chosen:
            about = {"case": case.name, "dtype": dtype}
            say(begun=case.name, dtype=dtype)
            arguments = case.draw(dtype)
            try:
                with jax.default_matmul_precision("highest"):
                    found = [jax.device_get(a) for a in comparison.results(case, arguments, implementation)]
                say(**about, error=comparison.worst_error(case, dtype, found, comparison.exact(case, arguments)))
            except comparison.WrongError as error:
                say(**about, wrong=str(error))
            except refusals as error:
                say(**about, refused=_reason(str(error), implementation))


def _reason(message: str, implementation: str) -> str:
    """Of an ImplementationError's list of reasons, that of the implementation that was asked for."""
    _, found, rest = message.partition(f"{implementation}: ")
    return rest.split("; ")[0].rstrip(")") if found else message


def tune(number: str, dtype: str) -> None:
    """What `measure.measure` finds of one case of `cases.LARGE`."""
    say(**dataclasses.asdict(measure.measure(cases.LARGE[int(number)], dtype)))


if __name__ == "__main__":
    commands: dict[str, Callable[..., None]] = {"describe": describe, "check": check, "tune": tune}
    commands[sys.argv[1]](*sys.argv[2:])
