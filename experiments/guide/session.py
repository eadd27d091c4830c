"""A run of the guide: topic after topic, each recorded before the next."""

from __future__ import annotations

import datetime
import functools
import hashlib
import importlib
import importlib.metadata
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from experiments.comparison import machine
from experiments.comparison.timing import OutOfTimeError
from experiments.errors import UserError
from experiments.guide.running import Options, run_case
from experiments.guide.topic import Topic

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
# What figures depend on beside the topic's own file and those of this folder that it imports.
_SHARED: tuple[str, ...] = (
    "experiments/guide/running.py",
    "experiments/guide/evidence.py",
    "experiments/comparison/timing.py",
    "experiments/inspect.py",
)
_SHARED += tuple(f"kernels/runtime/{name}.py" for name in ("dispatch", "launch"))
_SHARED += tuple(f"kernels/verification/{name}.py" for name in ("aot", "interpret", "residency", "traffic"))


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
    found |= {f"experiments/results/{path}" for path in load(name).reads}
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
