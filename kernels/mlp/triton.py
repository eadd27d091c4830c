"""A perceptron of two layers in one launch, forward: the hidden layer never leaves the multiprocessor.

Each block takes some rows through both layers and reads the weights once, from L2 after the first block. Floor in bytes: x, the
weights and y once. Under differentiation XLA's code runs (vjp.py): the backward pass needs the hidden layer, and its products
are cuBLAS's.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.mlp import config
from kernels.runtime import precision
from kernels.runtime.launch import launch, like
from kernels.runtime.sizes import cdiv, power_of_two
from kernels.runtime.triton_math import activate


@triton.jit
def forward_kernel(
    x, w0, b0, w1, b1, y,
    ROWS: tl.constexpr, INPUTS: tl.constexpr, HIDDEN: tl.constexpr, OUTPUTS: tl.constexpr,
    ACTIVATION: tl.constexpr, FINAL: tl.constexpr, SLOPE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    step, unit, column = tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_H), tl.arange(0, BLOCK_N)
    present = (row < ROWS)[:, None]
    hidden = tl.zeros((BLOCK_M, BLOCK_H), tl.float32)
    for k in range(0, INPUTS, BLOCK_K):
        left = tl.load(x + row[:, None] * INPUTS + k + step[None, :], mask=present & (step < INPUTS - k)[None, :], other=0.0)
        inside = (step < INPUTS - k)[:, None] & (unit < HIDDEN)[None, :]
        right = tl.load(w0 + (k + step)[:, None] * HIDDEN + unit[None, :], mask=inside, other=0.0)
        hidden = tl.dot(left, right, hidden, input_precision=PRECISION)
    hidden += tl.load(b0 + unit, mask=unit < HIDDEN, other=0.0).to(tl.float32)[None, :]
    # Units beyond the last are zero before the activation, and none of the activations moves zero.
    hidden = activate(hidden, ACTIVATION, SLOPE).to(x.dtype.element_ty)
    for n in range(0, OUTPUTS, BLOCK_N):
        there = (n + column < OUTPUTS)[None, :]
        right = tl.load(w1 + unit[:, None] * OUTPUTS + n + column[None, :], mask=(unit < HIDDEN)[:, None] & there, other=0.0)
        total = tl.dot(hidden, right, input_precision=PRECISION)
        total += tl.load(b1 + n + column, mask=n + column < OUTPUTS, other=0.0).to(tl.float32)[None, :]
        total = activate(total, FINAL, SLOPE)
        at = row[:, None] * OUTPUTS + n + column[None, :]
        tl.store(y + at, total.to(y.dtype.element_ty), mask=present & there)


def forward(x, w0, b0, w1, b1, activation, final, negative_slope, implementation):
    (rows, inputs), hidden, outputs = x.shape, w0.shape[1], w1.shape[1]
    chosen = config.choose(rows, inputs, hidden, outputs, x.dtype.itemsize)
    return launch(
        forward_kernel,
        *(x, w0, b0, w1, b1),
        outputs=[like(x, (rows, outputs))],
        grid=(cdiv(rows, chosen.block_m),),
        implementation=implementation,
        num_warps=chosen.num_warps,
        num_stages=chosen.num_stages,
        ROWS=rows,
        INPUTS=inputs,
        HIDDEN=hidden,
        OUTPUTS=outputs,
        ACTIVATION=activation,
        FINAL=final,
        SLOPE=float(negative_slope),
        PRECISION=precision.way(x.dtype),
        BLOCK_M=chosen.block_m,
        BLOCK_K=min(chosen.block_k, max(16, power_of_two(inputs))),
        BLOCK_H=max(16, power_of_two(hidden)),
        BLOCK_N=min(chosen.block_n, max(16, power_of_two(outputs))),
    )
