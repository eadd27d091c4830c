"""A run of the guide: topic after topic; in each case every way is checked, counted, timed and recorded."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import importlib
import importlib.metadata
import pathlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from experiments.comparison import machine
from experiments.comparison.timing import TOLERANCE, Contender, OutOfTimeError, measure, refusal
from experiments.errors import UserError
from experiments.guide import evidence, verdict
from experiments.guide.topic import Case, Topic, Variant
from kernels import aot

NAMES = (
    "memory_hierarchy",
    "coalescing",
    "occupancy",
    "fusion",
    "block_size",
    "divergence",
    "unrolling",
    "asynchronous_execution",
    "transfer_overlap",
)
_FOLDER = pathlib.Path(__file__).parent
# What figures depend on beside the topic's own file and those of this folder that it imports.
_SHARED: tuple[str, ...] = (
    "experiments/guide/session.py",
    "experiments/guide/evidence.py",
    "experiments/comparison/timing.py",
    "experiments/inspect.py",
)
_SHARED += tuple(f"kernels/{name}.py" for name in ("aot", "dispatch", "interpret", "launch", "residency", "traffic"))


@dataclasses.dataclass(frozen=True)
class Options:
    """What to do, and how long.

    Attributes:
      device: the kind to compile for or to measure on, as folders under experiments/results/ are called.
      measured: time the ways on the device at hand, which must be of that kind.
      quick: only the two ways that are held against each other, and few rounds.
      deadline: on time.monotonic; no topic is begun that would end after it.
    """

    device: str
    measured: bool
    quick: bool = False
    deadline: float = float("inf")

    @property
    def compiled(self) -> bool:
        return self.device in aot.TARGETS

    @property
    def platform(self) -> str:
        return "cpu" if self.device == "cpu" else "cuda"

    def of_row(self) -> dict[str, Any]:
        """What the figures of a topic depend on besides its sources."""
        clock = {"rounds": 3, "block_seconds": 0.03} if self.quick else {"rounds": 9, "block_seconds": 0.1}
        return {"quick": self.quick} | (clock if self.measured else {})


def load(name: str) -> Topic:
    """A topic by its name, dashes or underscores.

    Raises:
      UserError: there is none of this name.
    """
    plain = name.replace("-", "_")
    if plain not in NAMES:
        raise UserError(f"topic: {name!r} given, it is one of {', '.join(NAMES)}; or list, or all")
    try:
        return importlib.import_module(f"experiments.guide.{plain}").TOPIC
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise UserError("guide: the package triton is needed for its kernels; pip install triton") from error


@functools.cache
def source_digest(name: str) -> str:
    """Of what a topic's figures depend on."""
    found: set[str] = set()
    waiting = [f"experiments/guide/{name}.py", *_SHARED]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        if path.startswith("experiments/guide/"):
            text = (machine.ROOT / path).read_text()
            names = re.findall(r"^from experiments\.guide\.(\w+) import", text, re.M)
            names += re.findall(r"\w+", " ".join(re.findall(r"^from experiments\.guide import (.*)", text, re.M)))
            waiting += [f"experiments/guide/{n}.py" for n in names if n != "verdict"]
    digest = hashlib.sha256()
    for path in sorted(found):
        digest.update(path.encode() + b"\0" + (machine.ROOT / path).read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def header(options: Options) -> dict[str, Any]:
    """What every figure of a record was obtained with."""
    if options.measured:
        rounds, seconds = (options.of_row()[name] for name in ("rounds", "block_seconds"))
        protocol = (
            f"Blocks of about {seconds} s of calls, the ways in turn, {rounds} rounds; random inputs rotated beyond the cache; "
        )
        protocol += "each result checked before the clock starts"
        ceilings, where = machine.ceilings("float32"), machine.surroundings()
        return {"measured": True, "experiment": "guide", **where, "clocks": machine.clocks(), "protocol": protocol} | {
            "ceilings": ceilings
        }
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "triton", "jax-triton")}
    where = {
        "device": options.device,
        "versions": versions,
        "date": datetime.date.today().isoformat(),
        "commit": machine.commit(),
    }
    protocol = "compiled for this device, not run; kernels checked in an interpreter, then counted in the compiled programs"
    return {"measured": False, "experiment": "guide", **where, "clocks": None, "protocol": protocol, "ceilings": None}


def contender(case: Case, variant: Variant) -> Contender:
    assert variant.call is not None
    if case.kind == "host":  # the procedure itself decides when its inputs go to the device
        return Contender(variant.call, prepare=lambda inputs: inputs, to_numpy=evidence.outputs, profiled=False)
    call = functools.partial(variant.call, interpret=False) if case.kind == "kernel" else variant.call
    return Contender(jax.jit(call), to_numpy=evidence.outputs)


def timed(case: Case, variants: Sequence[Variant], options: Options) -> dict[str, dict[str, Any]]:
    """Figures of the clock by variant, or why there are none."""
    size, clock = case.sizes[options.platform], options.of_row()
    reference = [np.asarray(x, np.float64) for x in case.reference(*case.draw(np.random.default_rng(0), *size))]
    made: dict[str, Callable[[], Contender]] = {v.name: functools.partial(contender, case, v) for v in variants}
    return measure(
        made,
        lambda rng: case.draw(rng, *size),
        reference,
        TOLERANCE[case.dtype],
        platform=options.platform,
        rounds=clock["rounds"],
        block_seconds=clock["block_seconds"],
        deadline=options.deadline,
    )


def floor_seconds(case: Case, platform: str) -> float | None:
    """The longer of the bytes and the products at what this device reaches."""
    limits, size = machine.ceilings(case.dtype), case.sizes[platform]
    needed = [work(*size) / limits[name] for name, work in _works(case)]
    return max(needed, default=None)


def _works(case: Case) -> list[tuple[str, Callable[..., float]]]:
    works = (("bytes_per_second", case.bytes), ("flops_per_second", case.flops))
    return [(name, work) for name, work in works if work is not None]


def run_case(case: Case, options: Options) -> dict[str, Any] | None:
    """A case's row; None where there is nothing to count and nothing to time."""
    count = options.compiled and case.figure is not None
    clock = options.measured and case.runnable(options.platform)
    if not (count or clock):
        return None
    variants = [v for v in case.variants if not options.quick or v.name in (case.baseline, case.better)]
    found: dict[str, dict[str, Any]] = {v.name: {"compiled": None, "measured": None, "failed": None} for v in variants}
    for variant in variants if count else ():
        try:
            if variant.call is not None:
                evidence.require_right(case, variant)
            found[variant.name]["compiled"] = dict(evidence.counted(case, variant, options.device))
        except UserError:
            raise
        except Exception as problem:  # what is wrong or cannot be compiled is a row of the table, not the end of the run
            found[variant.name]["failed"] = refusal(variant.name, problem)
    floor = None
    if clock:
        right = [v for v in variants if "wrong:" not in (found[v.name]["failed"] or "")]
        floor = floor_seconds(case, options.platform)
        for name, figures in timed(case, right, options).items():
            if "failed" in figures:
                found[name]["failed"] = figures["failed"]
            else:
                found[name]["measured"] = figures | {"floor_fraction": None if floor is None else floor / figures["median"]}
    size = case.sizes.get(options.platform, case.sizes["check"])
    row = {name: getattr(case, name) for name in ("name", "kind", "dtype", "baseline", "better", "figure", "unit", "more")}
    row |= {"size": list(size), "floor_seconds": floor, "variants": found}
    return row | {"verdicts": verdict.of(row)}


def run_topic(topic: Topic, options: Options) -> dict[str, Any]:
    """A topic's row: its cases, the sources and the day."""
    begun = time.monotonic()
    cases = [row for case in topic.cases if (row := run_case(case, options)) is not None]
    jax.clear_caches()
    row = {"topic": topic.name, "source": source_digest(topic.name), "options": options.of_row(), "commit": machine.commit()}
    return row | {"date": datetime.date.today().isoformat(), "seconds": round(time.monotonic() - begun, 1), "cases": cases}


def run_topics(
    names: Sequence[str], options: Options, old: dict[str, Any] | None
) -> Iterator[tuple[dict[str, Any], str | None]]:
    """The record after each topic that had to be run, with the topic's name; at the end the record with None,
    `old` where none had to.

    Topics that `old` holds of the same sources, options, device and versions are not run again.
    """
    head = header(options)
    same = old is not None and all(old[name] == head[name] for name in ("measured", "device", "versions"))
    rows = {row["topic"]: row for row in old["topics"]} if same and old is not None else {}
    record = lambda: head | {"topics": [rows[name] for name in NAMES if name in rows]}
    longest, done = 0.0, False
    for name in names:
        row = rows.get(name)
        if row is not None and row["source"] == source_digest(name) and row["options"] == options.of_row():
            continue
        expected = row["seconds"] if row is not None else longest
        if time.monotonic() + expected > options.deadline:
            break
        try:
            rows[name] = run_topic(load(name), options)
        except OutOfTimeError:
            break
        longest = max(longest, rows[name]["seconds"])
        done = True
        yield record(), name
    yield (record() if done or not same or old is None else old), None
