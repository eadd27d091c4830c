"""A run of the comparison: its cases in turn, each checked, timed and saved before the next."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

import kernels
from experiments.comparison import contenders, programs
from experiments.comparison.case import Case
from experiments.comparison.cases import operator_cases
from experiments.comparison.models import ModelCase, model_cases
from experiments.measuring import clock, machine, result, resume, sources
from experiments.measuring.clock import MODEL_TOLERANCE, TOLERANCE, Contender, measure, refusal

DEFAULT_PRECISION = {"cpu": "float32", "cuda": "bfloat16"}


@dataclasses.dataclass(frozen=True)
class Options:
    """What to compare, and how long.

    Attributes:
      kind: "operators" or "models".
      only: part of the names of the cases to run.
      peers: some of `contenders.PEERS`.
      precision: of every case; if None the case's own where it has one, else bfloat16 on a GPU and float32 on a CPU.
      rounds, block_seconds: see `clock.measure`.
      deadline: on time.monotonic; no case is begun that would end after it, going by its last time or the longest so far.
    """

    kind: str
    quick: bool = False
    only: str = ""
    peers: tuple[str, ...] = ()
    precision: str | None = None
    rounds: int = 9
    block_seconds: float = 0.2
    deadline: float = float("inf")

    @property
    def platform(self) -> str:
        return kernels.device().platform

    def dtype(self, case: Case | ModelCase) -> str:
        return self.precision or case.precision or DEFAULT_PRECISION[self.platform]

    def of_row(self, case: Case | ModelCase) -> dict[str, Any]:
        """What the figures of a case depend on besides its sources."""
        protocol = {"rounds": self.rounds, "block_seconds": self.block_seconds}
        return {"dtype": self.dtype(case), "peers": sorted(self.peers)} | protocol


def cases_of(kind: str, quick: bool, platform: str) -> Sequence[Case | ModelCase]:
    """The cases in the order in which they are run."""
    return operator_cases(quick, platform) if kind == "operators" else model_cases(quick, platform)


def begin(options: Options) -> dict[str, Any]:
    """The record without its cases."""
    dtype = options.precision or DEFAULT_PRECISION[options.platform]
    ceilings = machine.ceilings(dtype)  # before the clocks are read, so that they are those of a device at work
    return result.begun(options.kind, "measured", machine.surroundings()) | {
        "clocks": machine.clocks(),
        "dtype": dtype,
        "protocol": clock.protocol("contenders", options.rounds, options.block_seconds),
        "ceilings": ceilings,
    }


def _work(case: Case | ModelCase, dtype: str, peers: list[str]) -> tuple[dict[str, Callable[[], Contender]], list[Any], dict]:
    """Contenders, their correct outputs, and the bytes and operations that any version needs."""
    itemsize = jnp.dtype(dtype).itemsize
    if isinstance(case, Case):
        made = contenders.operator_contenders(case, dtype, peers)
        return made, contenders.operator_reference(case), {"bytes": case.bytes(itemsize), "flops": case.flops}
    weights = programs.Weights(case)
    made = contenders.model_contenders(weights, dtype, peers)
    return made, contenders.model_reference(weights), {"bytes": weights.bytes(itemsize), "flops": case.flops()}


def run_case(case: Case | ModelCase, options: Options) -> dict[str, Any]:
    """One row of the record.

    Raises:
      OutOfTimeError: the deadline passed before every contender was checked.
    """
    dtype = options.dtype(case)
    row: dict[str, Any] = {"name": case.name}
    if isinstance(case, Case):
        row |= {"operator": case.operator}
    else:
        row |= {"model": case.model, "train": case.train, "examples": case.shape[0]}
    row |= {"dtype": dtype, "bytes": None, "flops": None, "floor_seconds": None}
    try:
        made, reference, least = _work(case, dtype, list(options.peers))
    except Exception as problem:  # so is one without a reference a row of the table
        found: dict[str, Any] = {"xla": {"failed": f"no reference: {refusal('xla', problem)}"}}
    else:
        row |= least
        row["floor_seconds"] = machine.floor_seconds(dtype, row["bytes"], row["flops"])
        allowed = (TOLERANCE if isinstance(case, Case) else MODEL_TOLERANCE)[dtype]
        limits = {"rounds": options.rounds, "block_seconds": options.block_seconds, "deadline": options.deadline}
        found = measure(made, case.draw, reference, allowed, platform=options.platform, **limits)  # type: ignore[arg-type]
    for figures in found.values():
        if "failed" not in figures:
            per_second = lambda work, seconds=figures["median"]: None if row[work] is None else row[work] / seconds
            figures["floor_fraction"] = per_second("floor_seconds")
            figures |= {f"{work}_per_second": per_second(work) for work in ("bytes", "flops")}
    return row | {"contenders": found}


def source_digest() -> str:
    """The digest of all that a case's time depends on. One kernel is imported by a computed name."""
    return sources.digest("experiments.comparison.session", "kernels.linear_act.pallas", tuned=True)


def compare(
    options: Options, path: pathlib.Path, line: Callable[[dict[str, Any]], str], tabled: Callable[[dict[str, Any]], object]
) -> dict[str, Any]:
    """Measure the cases that the file does not hold as they would be measured now. After each, what `line` makes of its row is
    printed, and `tabled` is given the record.

    Rows stay until their case is measured again; each says of which commit it is.

    Raises:
      UserError: `only` names no case; or it names some, and the file holds rows of another device or other versions.
    """
    source = source_digest()
    parts = [
        resume.Part(case.name, {"source": source, "options": options.of_row(case)}, functools.partial(run_case, case, options))
        for case in cases_of(options.kind, options.quick, options.platform)
    ]
    wanted, said = resume.chosen(parts, options.only), resume.said(line)

    def saved(record: dict[str, Any], name: str) -> None:
        said(record, name)
        tabled(record)

    return resume.complete(path, begin(options), parts, wanted, until=options.deadline, saved=saved).record
