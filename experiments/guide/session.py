"""A run of the guide: every variant of a topic's cases checked, counted and timed, and each topic recorded before the next."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from experiments.errors import UserError
from experiments.guide import evidence
from experiments.guide.topic import Case, Topic, Variant
from experiments.measuring import clock, machine, result, resume, sources
from experiments.measuring.clock import TOLERANCE, Contender, measure, refusal
from kernels.runtime import gpus


@dataclasses.dataclass(frozen=True)
class Options:
    """What to do, and how long.

    Attributes:
      device: the kind to compile for or to measure on, as folders under experiments/results/ are called.
      measured: time the variants on the device at hand, which must be of that kind.
      quick: only the two variants that are held against each other, and few rounds.
      deadline: on time.monotonic; no topic is begun that would end after it.
    """

    device: str
    measured: bool
    quick: bool = False
    deadline: float = float("inf")

    @property
    def compiled(self) -> bool:
        return gpus.is_known(self.device)

    @property
    def platform(self) -> str:
        return "cpu" if self.device == "cpu" else "cuda"

    def of_row(self) -> dict[str, Any]:
        """What the figures of a topic depend on besides its sources."""
        blocks = {"rounds": 3, "block_seconds": 0.03} if self.quick else {"rounds": 9, "block_seconds": 0.1}
        return {"quick": self.quick} | (blocks if self.measured else {})


def contender(case: Case, variant: Variant) -> Contender:
    assert variant.call is not None
    if case.kind == "host":  # the procedure itself decides when its inputs go to the device
        return Contender(variant.call, prepare=lambda inputs: inputs, to_numpy=evidence.outputs, profiled=False)
    call = functools.partial(variant.call, implementation="triton") if case.kind == "kernel" else variant.call
    return Contender(jax.jit(call, compiler_options=dict(variant.options) or None), to_numpy=evidence.outputs)


def timed(case: Case, variants: Sequence[Variant], options: Options) -> dict[str, dict[str, Any]]:
    """Figures of the clock by variant, or why there are none."""
    size, blocks = case.sizes[options.platform], options.of_row()
    reference = [np.asarray(x, np.float64) for x in case.reference(*case.draw(np.random.default_rng(0), *size))]
    made: dict[str, Callable[[], Contender]] = {v.name: functools.partial(contender, case, v) for v in variants}
    return measure(
        made,
        lambda rng: case.draw(rng, *size),
        reference,
        TOLERANCE[case.dtype],
        platform=options.platform,
        rounds=blocks["rounds"],
        block_seconds=blocks["block_seconds"],
        deadline=options.deadline,
    )


def floor_seconds(case: Case, platform: str) -> float | None:
    """The longer of the bytes and the products at what this device reaches."""
    size = case.sizes[platform]
    return machine.floor_seconds(case.dtype, *(work(*size) if work is not None else None for work in (case.bytes, case.flops)))


def run_case(case: Case, options: Options) -> dict[str, Any] | None:
    """A case's row, not yet judged; None where there is nothing to count and nothing to time."""
    count = options.compiled and case.figure is not None
    time = options.measured and case.runnable(options.platform)
    if not (count or time):
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
    if time:
        right = [v for v in variants if "wrong:" not in (found[v.name]["failed"] or "")]
        floor = floor_seconds(case, options.platform)
        for name, figures in timed(case, right, options).items():
            if "failed" in figures:
                found[name]["failed"] = figures["failed"]
            else:
                found[name]["measured"] = figures | {"floor_fraction": None if floor is None else floor / figures["median"]}
    size = next(case.sizes[name] for name in (options.platform, "compile", "check") if name in case.sizes)
    row = {name: getattr(case, name) for name in ("name", "kind", "dtype", "baseline", "better", "figure", "unit", "more")}
    row |= {"size": list(size), "floor_seconds": floor, "variants": found}
    return row | {"verdicts": {"compiled": None, "measured": None}}


def source_digest(topic: Topic) -> str:
    """Of all that a topic's figures depend on, but the words of its verdicts."""
    reads = tuple(result.RESULTS / path for path in topic.reads)
    return sources.digest(f"experiments.guide.{topic.name}", "experiments.guide.session", data=reads)


def header(options: Options) -> dict[str, Any]:
    """What every figure of a record was obtained with."""
    if options.measured:
        protocol = clock.protocol("the variants", *(options.of_row()[name] for name in ("rounds", "block_seconds")))
        ceilings = machine.ceilings("float32")
        return result.begun("guide", "measured", machine.surroundings()) | {
            "clocks": machine.clocks(),
            "protocol": protocol,
            "ceilings": ceilings,
        }
    protocol = "compiled for this device, not run; kernels checked in an interpreter, then counted in the compiled programs"
    head = result.begun("guide", "compiled", machine.compiled_for(options.device))
    return head | {"clocks": None, "protocol": protocol, "ceilings": None}


def run_topics(
    topics: Sequence[Topic], chosen: Sequence[str], options: Options, path: pathlib.Path, saved: Callable[[dict, str], None]
) -> resume.Completed:
    """Run the chosen ones of all topics that the file does not hold of the same sources, options, device and versions."""

    def run_topic(topic: Topic) -> dict[str, Any]:
        return {"cases": [row for case in topic.cases if (row := run_case(case, options)) is not None]}

    needs = lambda topic: {"source": source_digest(topic), "options": options.of_row()}
    parts = [resume.Part(topic.name, needs(topic), functools.partial(run_topic, topic)) for topic in topics]
    wanted, rows = chosen.__contains__, {"field": "topics", "key": "topic"}
    return resume.complete(path, header(options), parts, wanted, until=options.deadline, saved=saved, **rows)
