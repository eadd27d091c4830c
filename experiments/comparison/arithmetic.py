"""Counts the arithmetic of a compiled GPU program: additions and multiplications of its matrix products and convolutions.

What is done element by element is not counted: next to a product it is little, and without a product memory is the limit.
"""

from __future__ import annotations

import math
import re

LENET5 = 2 * 416_520  # operations of one image in the kernel that holds the whole network
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_SHAPE = re.compile(r"\b(?:[a-z]+\d+|pred)\[([\d,]*)\]")
_CONVOLUTION = re.compile(r"custom_call_target=\"__cudnn\$conv(\w+)\"")
_HAND_WRITTEN = re.compile(r"\b(linear_act|mlp|lenet5)\b.*(?:forward_kernel:|mpmd_map|mosaic)")


def shapes(text: str) -> list[tuple[int, ...]]:
    """Those that a piece of HLO names, in order."""
    return [tuple(map(int, filter(None, dims.split(",")))) for dims in _SHAPE.findall(text)]


def operations_of(hlo: str) -> dict[str, float]:
    """By instruction of an optimized HLO module, how many operations one run of it takes; without those that take none."""
    owners, texts, current = {}, {}, ""
    for line in hlo.splitlines():
        if start := _COMPUTATION.match(line):
            current = start[1]
        elif found := _INSTRUCTION.match(line):
            texts[found[1]], owners[found[1]] = found[2], current
    own = {name: count for name, text in texts.items() if (count := _own(text, texts))}
    inside: dict[str, float] = {}
    for name, count in own.items():
        inside[owners[name]] = inside.get(owners[name], 0.0) + count
    fused = {name: re.search(r" fusion\(.*calls=%?([\w.\-]+)", text) for name, text in texts.items()}
    return own | {name: inside[call[1]] for name, call in fused.items() if call and call[1] in inside}


def _own(text: str, texts: dict[str, str]) -> float:
    """Of one instruction, without what it calls."""
    shape_of = lambda name: (shapes(texts[name].split("(", 1)[0]) or [()])[0]
    if dot := re.search(r" dot\(%?([\w.\-]+),", text):
        left = shape_of(dot[1])
        depth = math.prod(left[int(i)] for i in re.findall(r"lhs_contracting_dims=\{([\d,]*)\}", text)[0].split(",") if i)
        return 2.0 * math.prod(shapes(text)[0]) * depth
    if call := _CONVOLUTION.search(text):
        operands = re.findall(r"%([\w.\-]+)", text.partition("custom-call(")[2].partition(")")[0])
        out, first, second = shapes(text)[0], shape_of(operands[0]), shape_of(operands[1])
        # One multiplication and one addition for each value of y and each weight that reaches it: |w| / features of them.
        y, w = {"BackwardInput": (first, second), "BackwardFilter": (second, out)}.get(call[1], (out, second))
        labels = re.findall(r"dim_labels=\w+_(\w+)->", text)[0]
        return 2.0 * math.prod(y) * math.prod(w) / w[labels.index("o")]
    scope = re.search(r'op_name="([^"]*)"', text)
    if "custom-call(" in text and scope and (hand := _HAND_WRITTEN.search(scope[1])):
        x, *others = shapes(text.partition("operand_layout_constraints={")[2].partition("metadata")[0])
        if hand[1] == "lenet5":
            return float(x[0] * LENET5)
        return 2.0 * math.prod(x[:-1]) * sum(math.prod(w) for w in others if len(w) == 2)
    return 0.0
