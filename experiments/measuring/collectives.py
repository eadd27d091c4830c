"""What devices say to each other in a compiled program: the collectives of optimized HLO, and what may run beside them.

The HLO that XLA gives for a GPU is scheduled: its order is that of execution, and an asynchronous collective is a pair of
start and done. What stands between the two runs beside it. What could: everything that neither needs its result nor is needed
by it, found from the operands of all instructions of the same computation.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator

import numpy as np

from experiments.measuring import counting, device_model
from kernels.verification import traffic

KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|collective-broadcast"
_COLLECTIVE = re.compile(rf"(?:^|[\s}})\]])({KINDS})(-start)?\(")
_DONE = re.compile(rf"(?:^|[\s}})\]])(?:{KINDS})-done\(%?([\w.\-]+)\)")
_WRAPPED = re.compile(r"(?:^|[\s})\]])async-(start|done)\(")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))?\s*\{([^}]*)\}")
_IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_LISTED = re.compile(r"replica_groups=\{\{([\d,]+)\}")
Rows = list[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of a program.

    Attributes:
      kind: "all-reduce", "all-gather", "reduce-scatter" and the like.
      bytes: of the whole array, on each device: what an all-reduce adds up, an all-gather makes, a reduce-scatter begins with.
      devices, hosts: in a group, and how many hosts these are of.
      times: how often a loop runs it.
      beside: kernels scheduled between its start and its done; of a synchronous one none.
      free_seconds: modelled time of the kernels that could run beside it.
    """

    kind: str
    bytes: int
    devices: int
    hosts: int
    times: int
    beside: int
    free_seconds: float


def group_of(text: str, per_host: int, count: int) -> tuple[int, int]:
    """(devices, hosts) of the first group of a collective, of `count` devices with `per_host` to a host.

    Raises:
      ValueError: the groups are written in a form that is not known here.
    """
    if found := _MESH.search(text):
        sizes = {name: int(size) for name, size in re.findall(r"([\w.]+)'?=(\d+)", found[1])}
        named = re.findall(r"[\w.]+", found[4])
        if not named or not sizes.keys() >= set(named):
            raise ValueError(f"replica groups: {found[0]!r} is not read here")
        order = [*(name for name in sizes if name not in named), *named]
        ids = _ids(found[2] or str(math.prod(sizes.values())), found[3]).reshape(list(sizes.values()))
        ids = ids.transpose([list(sizes).index(name) for name in order]).reshape(-1, math.prod(sizes[name] for name in named))[
            0
        ]
    elif found := _IOTA.search(text):
        ids = _ids(found[3], found[4]).reshape(int(found[1]), int(found[2]))[0]
    elif found := _LISTED.search(text):
        ids = np.array([int(number) for number in found[1].split(",")])
    elif "replica_groups={}" in text:
        ids = np.arange(count)
    else:
        raise ValueError(f"replica groups: none are read in {text[:120]!r}")
    return len(ids), len({int(number) // per_host for number in ids})


def _ids(dims: str, order: str | None) -> np.ndarray:
    """0, 1, 2, ... in an array of these dimensions, its axes in another order."""
    sizes = [int(size) for size in dims.split(",")]
    return np.arange(math.prod(sizes)).reshape(sizes).transpose([int(axis) for axis in order.split(",")] if order else None)


def collectives_of(hlo: str, device: str, precision: str, per_host: int, count: int) -> tuple[list[Collective], float, float]:
    """The collectives of a program compiled for a kind of device; of all its other kernels the modelled seconds, and those of
    their launches alone."""
    computations, entry = traffic.computations_of(hlo)
    operations = counting.operations_of(hlo)
    launch = device_model.constants(device)["launch"]
    others = [kernel for kernel in traffic.kernels_of(hlo) if not re.match(KINDS, kernel.kind)]
    own = {
        kernel.instruction: device_model.floor_seconds(device, precision, kernel.bytes, operations.get(kernel.instruction, 0.0))
        + launch
        for kernel in others
    }

    def seconds(name: str, text: str) -> float:
        """Of an instruction with all that it runs."""
        return own.get(name, 0.0) + sum(
            times * seconds(*row) for part, times in _called(text) for row in computations.get(part, [])
        )

    found = list(_walk(computations, entry, 1, seconds, per_host, count))
    return found, sum(seconds(*row) for row in computations[entry]), launch * sum(kernel.times for kernel in others)


def _called(text: str) -> list[tuple[str, int]]:
    """The computations that an instruction runs, a kernel's own parts left out, and how often each."""
    if re.search(r"[\s})\]]while\(", text):
        trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', text)
        return [(name, int(trips[1]) if trips else 1) for name in re.findall(r"body=%?([\w.\-]+)", text)]
    if re.search(r"[\s})\]](call|conditional|async-start)\(", text):
        return [(name, 1) for name in re.findall(r"(?:to_apply|calls)=%?([\w.\-]+)", text)]
    return []


def _walk(
    computations: dict[str, Rows], name: str, times: int, seconds: Callable[[str, str], float], per_host: int, count: int
) -> Iterator[Collective]:
    rows = computations[name]
    place = {instruction: number for number, (instruction, _) in enumerate(rows)}
    done = {match[1]: number for number, (_, text) in enumerate(rows) if (match := _DONE.search(text))}
    for number, (_, text) in enumerate(rows):  # a wrapped collective's pair has the general names
        if (match := _WRAPPED.search(text)) and match[1] == "done":
            done |= dict.fromkeys(re.findall(r"%([\w.\-]+)", text[match.end() :])[:1], number)
    costs = [seconds(*row) for row in rows]
    above: list[int] | None = None
    for number, (instruction, text) in enumerate(rows):
        inner = [(part, often) for part, often in _called(text) if part in computations]
        wrapped = next((row for part, _ in inner for row in computations[part] if _COLLECTIVE.search(row[1])), None)
        is_async = _WRAPPED.search(text) is not None
        match = _COLLECTIVE.search(text)
        if match is None and not (is_async and wrapped):
            for part, often in inner:
                yield from _walk(computations, part, times * often, seconds, per_host, count)
            continue
        what = text if match else wrapped[1]  # type: ignore[index]
        match = match or _COLLECTIVE.search(what)
        assert match is not None
        above = _ancestors(rows, place) if above is None else above
        end = done.get(instruction, number)
        mine = 1 << number
        free = sum(
            cost
            for at, cost in enumerate(costs)
            if cost and at != number and not above[at] & mine and not above[number] >> at & 1
        )
        devices, hosts = group_of(what, per_host, count)
        beside = sum(1 for cost in costs[number + 1 : end] if cost)
        yield Collective(match[1], _size(what, match, devices), devices, hosts, times, beside, free)


def _ancestors(rows: Rows, place: dict[str, int]) -> list[int]:
    """For each instruction the set of those that it needs, as bits of a number."""
    found: list[int] = []
    for _, text in rows:
        needed = 0
        for operand in re.findall(r"%([\w.\-]+)", text):
            at = place.get(operand)
            if at is not None and at < len(found):
                needed |= found[at] | 1 << at
        found.append(needed)
    return found


def _size(text: str, match: re.Match[str], devices: int) -> int:
    """Bytes of the whole array: of a pair's tuple of operands and results, the results."""
    shape = text[: match.start(1)].strip()
    if match[2] and match[1] != "all-reduce" and shape.startswith("("):
        parts = _halves(shape)
        return traffic.shape_bytes(parts[1]) * (devices if match[1] == "reduce-scatter" else 1)
    return traffic.shape_bytes(shape) * (devices if match[1] == "reduce-scatter" else 1)


def _halves(shape: str) -> tuple[str, str]:
    """Operands and results of a tuple ((operands), (results)) or (operand, result)."""
    parts = re.findall(r"\b(?:[a-z]+\d+|pred)\[[\d,]*\]", shape)
    middle = len(parts) // 2
    return " ".join(parts[:middle]), " ".join(parts[middle:])
