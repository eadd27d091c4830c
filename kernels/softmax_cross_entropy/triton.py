"""Softmax cross-entropy with class numbers as labels: each pass reads the logits once.

Residuals are two numbers per row, [rows, 2] float32: the largest logit, and the log of the sum of exp(logit - largest). Their
sum would lose the digits that matter where logits are large. Floor in bytes, with e bytes per element: forward e * logits,
backward 2 * e * logits. XLA's fusions move a third more than that (docs/kernels.md): this operator is the control, where a
hand-written kernel has little to win.
"""

from __future__ import annotations

import jax.numpy as jnp
import triton
import triton.language as tl

from kernels.runtime.launch import launch, like
from kernels.runtime.sizes import cdiv
from kernels.softmax_cross_entropy import config


@triton.jit
def forward_kernel(
    logits, labels, loss, normalizers,
    ROWS: tl.constexpr, CLASSES: tl.constexpr, SMOOTHING: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    present = row < ROWS
    label = tl.load(labels + row, mask=present, other=0)
    largest = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32)
    reference = tl.zeros((BLOCK_ROWS,), tl.float32)  # the largest, or zero where that is minus infinity
    total = tl.zeros((BLOCK_ROWS,), tl.float32)  # of exp(logit - reference)
    at_label = tl.zeros((BLOCK_ROWS,), tl.float32)
    plain = tl.zeros((BLOCK_ROWS,), tl.float32)  # of logit - reference
    for start in range(0, CLASSES, BLOCK):
        column = start + tl.arange(0, BLOCK)
        here = present[:, None] & (column < CLASSES)[None, :]
        at = row[:, None] * CLASSES + column[None, :]
        value = tl.load(logits + at, mask=here, other=float("-inf")).to(tl.float32)
        new = tl.maximum(largest, tl.max(value, 1))
        before = reference
        reference = tl.where(new == float("-inf"), 0.0, new)
        total = total * tl.exp(largest - reference) + tl.sum(tl.exp(value - reference[:, None]), 1)
        largest = new
        at_label += tl.sum(tl.where(column[None, :] == label[:, None], value, 0.0), 1)
        if SMOOTHING > 0:
            plain += start * (before - reference) + tl.sum(tl.where(here, value - reference[:, None], 0.0), 1)
    log_total = tl.log(total)
    known = (label >= 0) & (label < CLASSES)
    expected = tl.where(known, at_label - reference, float("nan"))
    if SMOOTHING > 0:
        expected = (1.0 - SMOOTHING) * expected + SMOOTHING * (plain / CLASSES)
    tl.store(loss + row, log_total - expected, mask=present)
    tl.store(normalizers + 2 * row, reference, mask=present)
    tl.store(normalizers + 2 * row + 1, log_total, mask=present)


@triton.jit
def backward_kernel(
    logits, labels, normalizers, dloss, dlogits,
    ROWS: tl.constexpr, CLASSES: tl.constexpr, SMOOTHING: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    present = row < ROWS
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    here = present[:, None] & (column < CLASSES)[None, :]
    at = row[:, None] * CLASSES + column[None, :]
    label = tl.load(labels + row, mask=present, other=0)
    reference = tl.load(normalizers + 2 * row, mask=present, other=0.0)
    log_total = tl.load(normalizers + 2 * row + 1, mask=present, other=0.0)
    g = tl.load(dloss + row, mask=present, other=0.0)
    value = tl.load(logits + at, mask=here, other=float("-inf")).to(tl.float32)
    probability = tl.exp(value - reference[:, None] - log_total[:, None])
    target = tl.where(column[None, :] == label[:, None], 1.0 - SMOOTHING, 0.0) + SMOOTHING / CLASSES
    tl.store(dlogits + at, (g[:, None] * (probability - target)).to(dlogits.dtype.element_ty), mask=here)


def forward(logits, labels, label_smoothing, implementation):
    """The losses, and what the backward pass needs of each row."""
    outputs = [like(logits, shape, jnp.float32) for shape in (logits.shape[:1], (logits.shape[0], 2))]
    return _launch(forward_kernel, (logits, labels), outputs, False, label_smoothing, implementation)


def backward(logits, labels, normalizers, dloss, label_smoothing, implementation):
    inputs = (logits, labels, normalizers, dloss)
    return _launch(backward_kernel, inputs, [like(logits)], True, label_smoothing, implementation)


def _launch(kernel, inputs, outputs, across, label_smoothing, implementation):
    """`across`: columns are shared out over the grid too."""
    rows, classes = inputs[0].shape
    block_rows, block, chosen = config.choose(classes)
    return launch(
        kernel,
        *inputs,
        outputs=outputs,
        grid=(cdiv(rows, block_rows), cdiv(classes, block) if across else 1),
        implementation=implementation,
        num_warps=chosen.num_warps,
        ROWS=rows,
        CLASSES=classes,
        SMOOTHING=float(label_smoothing),
        BLOCK_ROWS=block_rows,
        BLOCK=block,
    )
