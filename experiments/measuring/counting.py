"""Counts what a compiled GPU program launches, moves and computes, by kind of work, and models its time.

Launches and bytes are those of `kernels.verification.traffic`. Of the arithmetic only the additions and multiplications of
matrix products and convolutions count: elementwise work is negligible beside a product, and without one memory is the limit.
"""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from experiments.measuring import device_model
from kernels.runtime import launch
from kernels.verification import aot, traffic

LENET5 = 2 * 416_520  # operations of one image in the kernel that holds the whole network
_SHAPE = re.compile(r"\b(?:[a-z]+\d+|pred)\[([\d,]*)\]")
_CONVOLUTION = re.compile(r"custom_call_target=\"__cudnn\$conv(\w+)\"")
_HAND_WRITTEN = re.compile(r"\b(linear_act|mlp|lenet5)\b.*(?:forward_kernel|mpmd_map|mosaic)")
_PERSISTENT = re.compile(r"\b(?:lstm|gru|rnn)\b.*\b(\w+_kernel)\b")
# The first pattern found in a kernel's origin names its kind of work; the order matters. The "transpose(" that stands for a
# gradient in a scope is no transposition.
KINDS = (
    ("collective", r"all-reduce|all-gather|reduce-scatter|collective-permute"),
    ("optimizer", r"optimizer"),
    ("norm", r"batch_norm_act|local_response_norm|batch_norm"),
    ("pooling", r"max_pool|avg_pool|adaptive|reduce_window|select_and_scatter"),
    ("loss", r"softmax_cross_entropy|softplus"),
    ("recurrent", r"\b(lstm|gru|rnn)\b"),
    ("convolution", r"__cudnn\$conv|conv_general_dilated|\bconv\b"),
    ("matrix product", r"dot_general|__cublas|linear_act|\bmlp\b|lenet5"),
    ("activation", r"relu|tanh|gelu|sigmoid|logistic|max\b|dropout|bernoulli|add\b|\bgt\b|select_n"),
    ("reductions", r"reduce_sum"),
    ("copies", r"^copy|transpose|convert|concatenate|pad\b|reshape|broadcast"),
)


def kind_of(kernel: traffic.Kernel) -> str:
    """A kernel's kind of work by its origin; where that says only that it reduces or copies, by all that XLA fused into it."""

    def first(origin: str) -> str:
        return next((kind for kind, pattern in KINDS if re.search(pattern, origin.replace("transpose(", ""))), "other")

    own = first(f"{kernel.kind} {kernel.scope}")
    if own not in ("reductions", "copies", "other"):
        return own
    found = first(" ".join((kernel.kind, kernel.instruction, kernel.scope, *kernel.parts)))
    return own if found == "other" else found


def shapes(text: str) -> list[tuple[int, ...]]:
    """The shapes in a piece of HLO, in order."""
    return [tuple(map(int, filter(None, dims.split(",")))) for dims in _SHAPE.findall(text)]


def operations_of(hlo: str) -> dict[str, float]:
    """The operations of each instruction of an optimized HLO module; instructions without any are left out."""
    found = traffic.computations_of(hlo)[0]
    texts = {name: text for rows in found.values() for name, text in rows}
    owners = {name: computation for computation, rows in found.items() for name, _ in rows}
    own = {name: count for name, text in texts.items() if (count := _own(text, texts))}
    inside: dict[str, float] = {}
    for name, count in own.items():
        inside[owners[name]] = inside.get(owners[name], 0.0) + count
    fused = {name: re.search(r" fusion\(.*calls=%?([\w.\-]+)", text) for name, text in texts.items()}
    return own | {name: inside[call[1]] for name, call in fused.items() if call and call[1] in inside}


def _own(text: str, texts: dict[str, str]) -> float:
    """The operations of one instruction, without what it calls."""
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


def kernels_of(compiled: jax.stages.Compiled) -> list[traffic.Kernel]:
    """The launches of a compiled program."""
    return traffic.kernels_of(str(compiled.as_text()))


def total(compiled: jax.stages.Compiled) -> tuple[int, int]:
    """The number of launches, and the bytes that they move."""
    return traffic.total(kernels_of(compiled))


def temporary_bytes(compiled: jax.stages.Compiled) -> int | None:
    return getattr(compiled.memory_analysis(), "temp_size_in_bytes", None)


def spilled(calls: Sequence[launch.Launch], device: str) -> int:
    """Bytes that Triton's kernels among the launches spill."""
    return sum(aot.kernel_resources(call, device).spilled for call in dict.fromkeys(calls))


def figures(
    compiled: jax.stages.Compiled, device: str, precision: str, persistent: Mapping[str, tuple[float, float]]
) -> dict[str, Any]:
    """All counts of a program compiled for a device, and its time by the device's model.

    Args:
      precision: of its products.
      persistent: of persistent kernels by name, their seconds and operations (`recurrent_model.persistent_kernels`).
    """
    launched, operations = kernels_of(compiled), operations_of(str(compiled.as_text()))
    modelled = flops = 0.0
    kinds: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for kernel in launched:
        name = _PERSISTENT.search(kernel.scope)
        waiting, computed = persistent.get(name[1] if name else "", (0.0, operations.get(kernel.instruction, 0.0)))
        busy = max(device_model.floor_seconds(device, precision, kernel.bytes, computed), waiting)
        modelled += kernel.times * (busy + device_model.constants(device)["launch"])
        flops += kernel.times * computed
        kinds[kind_of(kernel)].update(kernels=kernel.times, bytes=kernel.bytes * kernel.times)
    count, moved = traffic.total(launched)
    return {
        "kernels": count,
        "hand_written": sum(k.times for k in launched if "triton_kernel_call" in k.kind or "mosaic" in k.kind),
        "bytes": moved,
        "flops": flops,
        "floor_seconds": device_model.floor_seconds(device, precision, moved, flops),
        "modelled_seconds": modelled,
        "temporary_bytes": temporary_bytes(compiled),
        "kinds": {kind: dict(of) for kind, of in sorted(kinds.items(), key=lambda item: -item[1]["bytes"])},
    }
