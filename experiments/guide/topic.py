"""What a topic is made of: cases, and in each the variants of the same work."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from kernels.runtime import launch
from kernels.verification import aot

Size = tuple[int, ...]


class Figure(NamedTuple):
    """A counted figure of a variant.

    Attributes:
      head: of its column in a table.
      unit: what it counts, to stand after "times fewer" or "times more", where it decides a case.
      more: the larger one is the better one.
      how: "compiled", counted in what compilers made; "executed", counted while that ran on the CPU; "modelled", computed.
    """

    head: str
    unit: str = ""
    more: bool = False
    how: str = "compiled"


# The figures that tables show, in this order.
FIGURES = {
    "kernels": Figure("kernels", "kernels"),
    "host_calls": Figure("host calls", "host calls"),
    "kernels_in_a_row": Figure("kernels in a row", "kernels in a row"),
    "held_bytes": Figure("bytes held", "bytes of device memory held"),
    "relative_error": Figure("relative error", "of relative error", how="modelled"),
    "bytes": Figure("bytes transferred"),
    "device_bytes": Figure("bytes of device memory", how="modelled"),
    "asked_bytes": Figure("bytes requested", "bytes requested", how="modelled"),
    "sent_bytes": Figure("bytes sent", "bytes sent", how="modelled"),
    "sectors_per_request": Figure("sectors per request", how="executed"),
    "sector_bytes_per_byte": Figure("sector bytes per byte used", "sector bytes per byte used", how="executed"),
    "sector_bytes_per_byte_in_block": Figure(
        "sector bytes per byte, once per block", "bytes of device memory per byte used", how="executed"
    ),
    "passes_per_request": Figure("passes per request to shared memory", "passes per request", how="executed"),
    "extra_passes": Figure("passes lost to bank conflicts", "passes lost to bank conflicts", how="executed"),
    "atomics": Figure("atomics per block", "atomic requests", how="executed"),
    "barriers": Figure("barriers per block", "barriers per block", how="executed"),
    "load_bytes": Figure("bytes per load"),
    "store_bytes": Figure("bytes per store"),
    "registers": Figure("registers"),
    "spilled_bytes": Figure("bytes spilled", "bytes spilled per thread"),
    "shared_bytes": Figure("shared bytes"),
    "resident_blocks": Figure("resident blocks", "resident blocks", more=True),
    "occupancy": Figure("occupancy"),
    "bytes_in_flight": Figure("bytes in flight"),
    "read_share": Figure("share of the read bandwidth", "of the read bandwidth", more=True, how="modelled"),
    "bytes_ahead": Figure("bytes prefetched", "bytes prefetched", more=True),
    "busy_multiprocessors": Figure("busy multiprocessors", "busy multiprocessors", more=True),
    "asynchronous_copies": Figure("asynchronous copies"),
    "loads_in_a_row": Figure("consecutive loads", "loads issued before the first is needed", more=True),
    "instructions": Figure("instructions", "instructions"),
    "executed_instructions": Figure("instructions executed", "instructions executed", how="executed"),
    "executed_per_element": Figure("instructions executed per element", "instructions executed per element", how="executed"),
    "loads": Figure("load instructions", "load instructions"),
    "constant_operands": Figure("operands in constant memory"),
    "constant_passes": Figure("passes of a warp", "passes of a warp", how="modelled"),
    "branches": Figure("branches"),
    "special_per_element": Figure("special functions per element"),
    "steps_per_element": Figure("steps per element", "steps per element", how="modelled"),
    "steps_per_step_needed": Figure("steps per step needed", "steps per step needed", how="modelled"),
    "transfer_ms": Figure("transfer, ms", how="modelled"),
    "step_ms": Figure("modelled ms per step", how="modelled"),
    "modelled_ms": Figure("modelled ms", "ms under the time model", how="modelled"),
}


@dataclasses.dataclass(frozen=True)
class Counted:
    """What is known of a variant once it is compiled: what its own `figures` are computed from.

    Attributes:
      kind: of the device that it was compiled for.
    """

    case: Case
    variant: str
    size: Size
    launches: tuple[launch.Launch, ...] = ()
    resources: tuple[aot.Resources, ...] = ()
    figures: Mapping[str, float] = dataclasses.field(default_factory=dict)  # those that every variant has
    kind: str = "nvidia-h200"


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to do a case's work.

    Attributes:
      call: inputs to outputs. Of a kernel it takes `implementation=`, how it is run, as well; None where nothing can be.
      figures: counted figures beyond those that every compiled kernel or program has.
      options: XLA's, which a program is compiled with where it is timed.
    """

    name: str
    call: Callable[..., Any] | None
    figures: Callable[[Counted], Mapping[str, float]] = lambda counted: {}
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Case:
    """The same work in several variants, and the two that are held against each other.

    Attributes:
      name: unique within the topic.
      reference: inputs to outputs, in NumPy.
      sizes: of the check ("check"), and of the runs on each platform ("cpu", "cuda"). "cuda" is compiled for as well; "count"
        is that at which a kernel is executed; "compile" that which it is compiled for where it is not to be run.
      kind: "kernel", a launch or more of our own; "ptx", a kernel written in PTX, which is executed on the CPU alone; "xla", a
        program; "host", a Python procedure.
      draw: random inputs of a size; one array of normal values if not given.
      baseline, better: the names of the ordinary variant and of the optimized one; the first and the last if not given.
      figure: the one of FIGURES that decides; None where only a clock can.
      unit: in place of the figure's own.
      bytes: that any variant must move at least; for the floor.
      flops: of its products.
    """

    name: str
    variants: tuple[Variant, ...]
    reference: Callable[..., list[np.ndarray]]
    sizes: Mapping[str, Size]
    kind: str = "kernel"
    draw: Callable[..., list[np.ndarray]] = lambda rng, *size: [normal(rng, *size)]
    baseline: str = ""
    better: str = ""
    figure: str | None = "modelled_ms"
    unit: str = ""
    bytes: Callable[..., float] | None = None
    flops: Callable[..., float] | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        unit = FIGURES[self.figure].unit if self.figure else ""
        for field, otherwise in (("baseline", names[0]), ("better", names[-1]), ("unit", unit)):
            object.__setattr__(self, field, getattr(self, field) or otherwise)
        if len(names) < 2 or len(set(names)) < len(names) or not {self.baseline, self.better} <= set(names):
            raise ValueError(f"case {self.name}: variants {names} must differ, and hold {self.baseline} and {self.better}")

    @property
    def more(self) -> bool:
        """The larger figure is the better one."""
        return self.figure is not None and FIGURES[self.figure].more

    def shapes(self, size: Size) -> list[jax.ShapeDtypeStruct]:
        """Of the inputs, without drawing large ones: the number of axes and the dtypes are those of a drawing."""
        return [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in self.draw(_NoValues(), *size)]

    def runnable(self, platform: str) -> bool:
        """Whether its variants can be timed on a platform: kernels run on a GPU only."""
        runs = all(variant.call is not None for variant in self.variants)
        return runs and platform in self.sizes and (platform == "cuda" or self.kind != "kernel") and self.kind != "ptx"


@dataclasses.dataclass(frozen=True)
class Topic:
    """An optimization.

    Attributes:
      name: as the command line has it.
      what: in one line.
      text: what the hardware does, when it pays and when not, with sources.
      kernel: the file of this repository where it is used, and what it does there.
      reads: result files that its figures are computed from, below experiments/results/.
      picture: draws what the topic is about onto a matplotlib figure, from the topic's row of the result file.
      exercise, answer: a question, and a function that finds out.
    """

    name: str
    what: str
    text: str
    kernel: str
    cases: tuple[Case, ...]
    reads: tuple[str, ...] = ()
    picture: Callable[[Any, Mapping[str, Any]], None] | None = None
    exercise: str = ""
    answer: Callable[[], str] | None = None


def variants(
    call: Callable[..., Any], rows: Mapping[str, Mapping[str, Any]], figures: Callable[..., Mapping[str, float]] | None = None
) -> tuple[Variant, ...]:
    """A variant for each name: `call` with its keywords, which `figures` is given too."""
    none: Callable[..., Mapping[str, float]] = lambda counted, **_: {}
    return tuple(
        Variant(name, functools.partial(call, **of), functools.partial(figures or none, **of)) for name, of in rows.items()
    )


class _NoValues:
    """Stands in for a random generator where only shapes are asked for: its arrays take no memory."""

    def standard_normal(self, shape: Any, dtype: Any = np.float32) -> np.ndarray:
        return np.broadcast_to(np.zeros((), dtype), shape)

    def integers(self, low: int, high: int, shape: Any, dtype: Any = np.int32) -> np.ndarray:
        return np.broadcast_to(np.zeros((), dtype), shape)

    def geometric(self, p: float, shape: Any) -> np.ndarray:
        return np.broadcast_to(np.ones((), np.int64), shape)


def normal(rng: Any, *shape: int, dtype: Any = np.float32) -> np.ndarray:
    """Standard normal values."""
    return rng.standard_normal(shape, np.float32).astype(dtype, copy=False)
