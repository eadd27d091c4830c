"""What a topic is made of: cases, and in each the variants of the same work."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from kernels.runtime import launch
from kernels.verification import aot

Size = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Counted:
    """What is known of a variant once it is compiled: what its own `figures` are computed from."""

    case: Case
    variant: str
    size: Size
    launches: tuple[launch.Launch, ...] = ()
    resources: tuple[aot.Resources, ...] = ()
    figures: Mapping[str, float] = dataclasses.field(default_factory=dict)  # those that every variant has


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to do a case's work.

    Attributes:
      call: inputs to outputs. Of a kernel it takes `implementation=`, how it is run, as well; None where nothing can be.
      figures: counted figures beyond those that every compiled kernel or program has.
    """

    name: str
    call: Callable[..., Any] | None
    figures: Callable[[Counted], Mapping[str, float]] = lambda counted: {}


@dataclasses.dataclass(frozen=True)
class Case:
    """The same work in several variants, and the two that are held against each other.

    Attributes:
      name: unique within the topic.
      kind: "kernel", a launch or more of our own; "xla", a program; "host", a Python procedure.
      baseline, better: the names of the ordinary variant and of the optimized one; the first and the last if not given.
      figure: the counted figure that decides; None where only a clock can.
      unit: what it counts, to stand after "times fewer" or "times more".
      draw: random inputs of a size.
      reference: inputs to outputs, in NumPy.
      sizes: of the check ("check"), and of the runs on each platform ("cpu", "cuda"). "cuda" is compiled for as well; "count"
        is that at which a kernel's addresses are looked at.
      bytes: that any variant must move at least; for the floor.
      flops: of its products.
      more: the larger figure is the better one.
    """

    name: str
    kind: str
    variants: tuple[Variant, ...]
    draw: Callable[..., list[np.ndarray]]
    reference: Callable[..., list[np.ndarray]]
    sizes: Mapping[str, Size]
    baseline: str = ""
    better: str = ""
    figure: str | None = "modelled_ms"
    unit: str = "ms by the model"
    bytes: Callable[..., float] | None = None
    flops: Callable[..., float] | None = None
    more: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        for field, value in (("baseline", self.baseline or names[0]), ("better", self.better or names[-1])):
            object.__setattr__(self, field, value)
        if self.figure is None:
            object.__setattr__(self, "unit", "")
        if len(names) < 2 or len(set(names)) < len(names) or not {self.baseline, self.better} <= set(names):
            raise ValueError(f"case {self.name}: variants {names} must differ, and hold {self.baseline} and {self.better}")

    def shapes(self, size: Size) -> list[jax.ShapeDtypeStruct]:
        """Of the inputs, without drawing large ones: the number of axes and the dtypes are those of a drawing."""
        return [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in self.draw(_NoValues(), *size)]

    def runnable(self, platform: str) -> bool:
        """Whether its variants can be timed on a platform: kernels run on a GPU only."""
        runs = all(variant.call is not None for variant in self.variants)
        return runs and platform in self.sizes and (platform == "cuda" or self.kind != "kernel")


@dataclasses.dataclass(frozen=True)
class Topic:
    """An optimization.

    Attributes:
      name: as the command line has it.
      what: in one line.
      text: what the hardware does, when it pays and when not, with sources.
      kernel: the file of this repository where it is used, and what it does there.
      reads: result files that its figures are computed from, below experiments/results/.
    """

    name: str
    what: str
    text: str
    kernel: str
    cases: tuple[Case, ...]
    reads: tuple[str, ...] = ()


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
