"""Who won, measured or compiled, and by how much."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

HAND_WRITTEN = ("triton", "pallas", "zoo")  # contenders' names; "zoo" is what a model chooses by itself
EVEN = 1.05  # a ratio below this, and above its inverse, is no difference
SHORTER = {
    "public benchmark ": "",
    ", forward + backward": ", fwd + bwd",
    ", forward": ", fwd",
    ", training step": ", training",
    "softmax_cross_entropy": "cross_entropy",
    "local_response_norm": "lrn",
    "batch_norm_act": "batch_norm",
    "bidirectional": "both ways",
}
Figures = dict[str, Any]


def even(ratio: float) -> bool:
    """Whether a ratio is too close to 1 to be called a difference."""
    return 1 / EVEN < ratio < EVEN


def touch(one: Figures, other: Figures) -> bool:
    """Whether two measured times differ by no more than the noise: their ranges from p20 to p80 touch."""
    return one["p20"] <= other["p80"] and other["p20"] <= one["p80"]


@dataclasses.dataclass(frozen=True)
class Duel:
    """The best form of XLA's code and the best hand-written contender of a case.

    Attributes:
      case: its row of the record.
      xla, hand: their figures; xla_name, hand_name: as the record names them.
      clock: the field that decides: "median" where it was measured, "modelled_seconds" where it was compiled.
    """

    case: dict[str, Any]
    xla_name: str
    xla: Figures
    hand_name: str
    hand: Figures
    clock: str

    @property
    def title(self) -> str:
        return short(full_name(self.case))

    def ratio(self, field: str = "") -> float:
        """XLA's figure over that of the hand-written kernels, by `clock` if no field is given; above 1 these are better."""
        field = field or self.clock
        return self.xla[field] / self.hand[field]

    @property
    def winner(self) -> str:
        """ "hand-written", "XLA" or "even"; measured times are even where their ranges from p20 to p80 touch."""
        ratio = self.ratio()
        same = touch(self.xla, self.hand) if self.clock == "median" else even(ratio)
        return "even" if same else "hand-written" if ratio > 1 else "XLA"


def clock_of(record: dict[str, Any]) -> str:
    return "median" if record["measured"] else "modelled_seconds"


def best(contenders: dict[str, Figures], clock: str, wanted: Callable[[str], bool]) -> tuple[str, Figures] | None:
    """Name and figures of the fastest contender of those wanted; None where none of them could run."""
    able = {name: found for name, found in contenders.items() if wanted(name) and clock in found}
    return min(able.items(), key=lambda item: item[1][clock]) if able else None


def is_xla(name: str) -> bool:
    """XLA's code in any form: as the reference is written, unrolled, in a CUDA graph."""
    return name.split()[0] == "xla"


def duels(record: dict[str, Any]) -> list[Duel]:
    """The duels of all cases that both sides can run, in the record's order."""
    clock, found = clock_of(record), []
    for case in record["cases"]:
        xla = best(case["contenders"], clock, is_xla)
        hand = best(case["contenders"], clock, HAND_WRITTEN.__contains__)
        if xla and hand:
            found.append(Duel(case, *xla, *hand, clock))
    return found


def peers(case: dict[str, Any], clock: str = "median") -> dict[str, float]:
    """The speedup of each peer (torch, flax, ...) over XLA's best form."""
    xla = best(case["contenders"], clock, is_xla)
    others = {n: f for n, f in case["contenders"].items() if not is_xla(n) and n not in HAND_WRITTEN and clock in f}
    return {name: xla[1][clock] / found[clock] for name, found in others.items()} if xla else {}


def full_name(case: dict[str, Any]) -> str:
    """A case's name, with the precision if it is not the default one on a GPU."""
    dtype = case.get("dtype", "bfloat16")
    return case["name"] if dtype == "bfloat16" else f"{case['name']}, {dtype}"


def short(name: str) -> str:
    """A case's name for a narrow column."""
    for long, narrow in SHORTER.items():
        name = name.replace(long, narrow)
    return name
