"""Counts what a compiled GPU program launches and moves, from XLA's optimized HLO.

A kernel's bytes are its operands and results, each once: what it moves through device memory if no cache holds anything from
one kernel to the next. A hand-written kernel that reads something twice says so in its attribute `extra_bytes`
(`kernels.runtime.launch`).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator

_BYTES = {
    kind: size
    for size, kinds in ((1, "pred s8 u8"), (2, "s16 u16 f16 bf16"), (4, "s32 u32 f32"), (8, "s64 u64 f64 c64"), (16, "c128"))
    for kind in kinds.split()
}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"(?:^|[\s})\]])([a-z][a-z0-9\-]*)\(")
_SHAPE = re.compile(r"\b([a-z]+\d+|pred)\[([\d,]*)\]")
_NO_KERNEL = re.compile(
    r"parameter|constant|tuple|get-tuple-element|bitcast|after-all|partition-id|replica-id|opt-barrier|while|call|conditional"
    r"|async-start|.*-done"
)


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One launch of the program."""

    instruction: str
    kind: str  # the HLO operation, with the target of a custom call
    scope: str  # where in the Python program it comes from: the path of jax.named_scope and of JAX's own functions
    bytes: int
    times: int = 1  # how often a loop runs it
    parts: tuple[str, ...] = ()  # the scopes of what XLA fused into it


def shape_bytes(shape: str) -> int:
    """Bytes of an HLO shape, or the sum over those of a tuple."""
    return sum(_BYTES.get(kind, 0) * math.prod(map(int, filter(None, dims.split(",")))) for kind, dims in _SHAPE.findall(shape))


def kernels_of(hlo: str) -> list[Kernel]:
    """The kernels that one run of an optimized HLO module launches."""
    computations, entry = computations_of(hlo)
    return list(_walk(computations, entry, 1))


def computations_of(hlo: str) -> tuple[dict[str, list[tuple[str, str]]], str]:
    """The instructions of an optimized HLO module, name and text, by computation; and the name of the one it begins with."""
    computations: dict[str, list[tuple[str, str]]] = {}
    entry, current = "", None
    for line in hlo.splitlines():
        if start := _COMPUTATION.match(line):
            current = computations.setdefault(start[2], [])
            entry = start[2] if start[1] else entry
        elif current is not None and (found := _INSTRUCTION.match(line)):
            current.append((found[1], found[2]))
    return computations, entry


def _walk(computations: dict[str, list[tuple[str, str]]], name: str, times: int) -> Iterator[Kernel]:
    results: dict[str, str] = {}
    for instruction, text in computations[name]:
        opcode = _OPCODE.search(text)
        if opcode is None:
            continue
        kind, shape = opcode[1], text[: opcode.start(1)]
        results[instruction] = shape
        if kind == "while":
            trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', text)
            # A loop whose number of steps is known is driven without its condition.
            for part in re.findall(r"body=%?([\w.\-]+)" if trips else r"(?:body|condition)=%?([\w.\-]+)", text):
                yield from _walk(computations, part, times * (int(trips[1]) if trips else 1))
        elif kind in ("call", "conditional", "async-start"):
            for part in re.findall(r"(?:to_apply|calls)=%?([\w.\-]+)", text):
                yield from _walk(computations, part, times)
        if _NO_KERNEL.fullmatch(kind):
            continue
        operands = re.findall(r"%([\w.\-]+)", _parenthesis(text, opcode.end()))
        read = {operand: shape_bytes(results.get(operand, "")) for operand in operands}
        fused = re.search(r"calls=%?([\w.\-]+)", text)
        inside = computations.get(fused[1], []) if fused else []
        for number, size in _sliced(inside).items():
            read[operands[number]] = min(size, read[operands[number]])
        untouched = 0
        for number, size in _updated(inside).items():
            untouched += read[operands[number]] - size
            read[operands[number]] = 0
        moved = shape_bytes(shape) - untouched + sum(read.values())
        if kind == "dynamic-update-slice":
            moved = 2 * read[operands[1]]
        if kind == "copy-start":
            moved = shape_bytes(shape)
        scope = re.search(r'op_name="([^"]*)"', text)
        again = re.search(r'extra_bytes="(\d+)"', text)
        target = re.search(r'custom_call_target="([^"]+)"', text)
        yield Kernel(
            instruction,
            f"{kind}:{target[1]}" if target else kind,
            scope[1] if scope else "",
            moved + (int(again[1]) if again else 0),
            times,
            _scopes(inside),
        )


def _scopes(fusion: list[tuple[str, str]]) -> tuple[str, ...]:
    """Where the operations of a fusion come from; a parameter's name is that of an argument, so it does not count."""
    found = (re.search(r'op_name="([^"]*)"', text) for _, text in fusion if not re.search(r"\bparameter\(\d+\)", text))
    return tuple(sorted({scope[1] for scope in found if scope}))


def _sliced(fusion: list[tuple[str, str]]) -> dict[int, int]:
    """The bytes that a fusion reads of those of its parameters, by number, of which it only takes slices."""
    found: dict[int, int] = {}
    for name, text in fusion:
        number = re.search(r"\bparameter\((\d+)\)", text)
        if number is None:
            continue
        users = [other for _, other in fusion if re.search(rf"%{re.escape(name)}\b(?![.\-])", other)]
        slices = [user for user in users if re.search(r"[\s\]})](dynamic-)?slice\(", user)]
        if users and len(slices) == len(users):
            found[int(number[1])] = sum(shape_bytes(user[: user.index("slice(")]) for user in slices)
    return found


def _updated(fusion: list[tuple[str, str]]) -> dict[int, int]:
    """The bytes that a fusion writes of those of its parameters, by number, that it updates in place with a slice."""
    numbers = {name: int(number[1]) for name, text in fusion if (number := re.search(r"\bparameter\((\d+)\)", text))}
    shapes = {name: text.partition("(")[0] for name, text in fusion}
    found: dict[int, int] = {}
    for _, text in fusion:
        if " dynamic-update-slice(" in text:
            whole, part = re.findall(r"%([\w.\-]+)", text.partition(" dynamic-update-slice(")[2])[:2]
            if whole in numbers:
                found[numbers[whole]] = shape_bytes(shapes[part])
    return found


def _parenthesis(text: str, start: int) -> str:
    """What stands between the parenthesis opened just before `start` and its end."""
    depth = 1
    for i in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            return text[start:i]
    return text[start:]


def total(kernels: list[Kernel]) -> tuple[int, int]:
    """Launches and bytes."""
    return sum(k.times for k in kernels), sum(k.bytes * k.times for k in kernels)
