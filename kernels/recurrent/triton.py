"""Persistent kernels: one launch runs all steps of a layer in both directions, or of a stack of layers as a wavefront.

The weights of a block's units are read once and stay on the chip; the state goes from block to block through the L2 cache, in
two alternating buffers, so that one barrier per step is enough. A chain is what carries a state through time: a direction
of a layer, or a layer of a stack. Where the chains are the layers of a stack, layer l is at step t while layer l + 1 is at
step t - 1, and multiplies what layer l wrote before the last barrier: its input product is part of its recurrent product,
with twice the rows. The input product of a first layer comes before the launch and all weight gradients after it, each as one
large matrix product over all steps.

Residuals are, per step and unit, the state (and for an LSTM the cell) and the activations of the gates; backward reads them
and runs in the same manner, from the last layer to the first, with the same weights transposed.

A step loads what no other block wrote before it waits at the barrier, and stores what no other block waits for after it has
arrived, so that both overlap with the barrier.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.runtime.triton_math import tanh


@triton.jit
def arrive(arrived):
    """Counts this block: what it stored before is seen by every block that has waited for the count."""
    tl.debug_barrier()
    tl.atomic_add(arrived, 1, sem="release", scope="gpu")


@triton.jit
def wait(arrived, target):
    """Waits until `target` arrivals were counted: each block of a group arrives once per step."""
    while tl.atomic_add(arrived, 0, sem="acquire", scope="gpu") < target:
        pass
    tl.debug_barrier()


@triton.jit
def gates_apart(z, UNITS: tl.constexpr, BATCH: tl.constexpr):
    """[4 * UNITS, BATCH], gate by gate, as four of [UNITS, BATCH]."""
    z = tl.permute(tl.reshape(z, (2, 2, UNITS, BATCH)), (2, 3, 1, 0))
    first, second = tl.split(z)
    zero, one = tl.split(first)
    two, three = tl.split(second)
    return zero, one, two, three


@triton.jit
def bias(b, unit, HIDDEN: tl.constexpr):
    """One gate's bias, [UNITS, 1]."""
    return tl.load(b, mask=unit < HIDDEN, other=0.0).to(tl.float32)[:, None]


@triton.jit
def gate_input(x, b, now, layer, LAYERS: tl.constexpr, HIDDEN: tl.constexpr, unit):
    """What is added to one gate besides the product: a first layer's input product, or the bias of a layer above it."""
    value = tl.load(x, mask=now & (layer == 0), other=0.0).to(tl.float32)
    if LAYERS > 1:
        value += bias(b, unit, HIDDEN)
    return value


@triton.jit
def forward_kernel(
    x_proj, w, b_x, b_h, h0, c0, lengths, scales,
    hs, cs, saved, h_last, c_last, exchange, arrived,
    CELL: tl.constexpr, TIME: tl.constexpr, DIRECTIONS: tl.constexpr, LAYERS: tl.constexpr, BATCH: tl.constexpr,
    HIDDEN: tl.constexpr, REVERSE: tl.constexpr, DROPOUT: tl.constexpr, GATE_COUNT: tl.constexpr,
    WEIGHT_GATES: tl.constexpr, PADDED_GATES: tl.constexpr, UNITS: tl.constexpr, BLOCK_BATCH: tl.constexpr,
    PADDED_HIDDEN: tl.constexpr, BLOCKS: tl.constexpr, GROUP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    chain = tl.program_id(2)
    layer = chain // DIRECTIONS
    direction = chain % DIRECTIONS
    flipped = direction if DIRECTIONS == 2 else REVERSE  # 1 where time is read from its end
    counter = arrived + direction * tl.num_programs(1) + tl.program_id(1)
    unit = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    row = tl.program_id(1) * BLOCK_BATCH + tl.arange(0, BLOCK_BATCH)
    mine = (unit < HIDDEN)[:, None] & (row < BATCH)[None, :]
    at = (chain * BATCH + row)[None, :] * HIDDEN + unit[:, None]  # in an array [chains, batch, hidden]
    at_gates = (direction * BATCH + row)[None, :] * (GATE_COUNT * HIDDEN) + unit[:, None]
    at_saved = (chain * BATCH + row)[None, :] * (4 * HIDDEN) + unit[:, None]
    STATE: tl.constexpr = DIRECTIONS * LAYERS * BATCH * HIDDEN
    dtype = hs.dtype.element_ty

    # What is multiplied: this chain's state, and in a stack the output of the layer below.
    INPUTS: tl.constexpr = 2 if LAYERS > 1 else 1
    term = tl.arange(0, INPUTS * PADDED_HIDDEN)
    source, every = term // PADDED_HIDDEN, term % PADDED_HIDDEN
    term_here = (every < HIDDEN) & (source <= layer)
    all_here = term_here[:, None] & (row < BATCH)[None, :]
    # With dropout a buffer holds the states, and behind them what goes to the layer above.
    at_all = ((chain - source + DROPOUT * LAYERS * source)[:, None] * BATCH + row[None, :]) * HIDDEN + every[:, None]
    BUFFER: tl.constexpr = STATE * (1 + DROPOUT)

    column = tl.arange(0, PADDED_GATES * UNITS)
    column_gate, column_unit = column // UNITS, tl.program_id(0) * UNITS + column % UNITS
    weight_here = ((column_gate < WEIGHT_GATES) & (column_unit < HIDDEN))[:, None] & term_here[None, :]
    weight_row = (chain * INPUTS + source) * HIDDEN + every
    weight_at = weight_row[None, :] * (WEIGHT_GATES * HIDDEN) + (column_gate * HIDDEN + column_unit)[:, None]
    weights = tl.load(w + weight_at, mask=weight_here, other=0.0)

    h = tl.load(h0 + at, mask=mine, other=0.0)
    c = h
    if CELL == "lstm":
        c = tl.load(c0 + at, mask=mine, other=0.0)
    if CELL == "gru":
        bias_h = b_h + chain * (3 * HIDDEN) + unit
        b_0, b_1 = bias(bias_h, unit, HIDDEN), bias(bias_h + HIDDEN, unit, HIDDEN)
        b_2 = bias(bias_h + 2 * HIDDEN, unit, HIDDEN)
    bias_x = b_x + chain * (GATE_COUNT * HIDDEN) + unit
    tl.store(exchange + at, h.to(dtype), mask=mine, cache_modifier=".cg")
    if DROPOUT:  # the layer above reads it before there is anything, and is not active then
        tl.store(exchange + STATE + at, tl.zeros_like(h).to(dtype), mask=mine, cache_modifier=".cg")
    arrive(counter)

    for step in range(TIME + LAYERS - 1):
        index = step - layer
        active = (index >= 0) & (index < TIME)
        now = mine & active
        t = (index + flipped * (TIME - 1 - 2 * index)).to(tl.int64)
        length = tl.load(lengths + row, mask=row < BATCH, other=0)  # read again: a register less to hold
        real = ((t < length) & active)[None, :]
        x = x_proj + t * (DIRECTIONS * BATCH * GATE_COUNT * HIDDEN) + at_gates
        x_0 = gate_input(x, bias_x, now, layer, LAYERS, HIDDEN, unit)
        if GATE_COUNT > 1:
            x_1 = gate_input(x + HIDDEN, bias_x + HIDDEN, now, layer, LAYERS, HIDDEN, unit)
            x_2 = gate_input(x + 2 * HIDDEN, bias_x + 2 * HIDDEN, now, layer, LAYERS, HIDDEN, unit)
        if CELL == "lstm":
            x_3 = gate_input(x + 3 * HIDDEN, bias_x + 3 * HIDDEN, now, layer, LAYERS, HIDDEN, unit)
        if DROPOUT:
            upward = scales + (layer.to(tl.int64) * TIME + t) * (BATCH * HIDDEN) + row[None, :] * HIDDEN + unit[:, None]
            scale = tl.load(upward, mask=now & (layer < LAYERS - 1), other=0.0).to(tl.float32)
        wait(counter, (step + 1) * GROUP)

        # .cg reads the L2 cache: a line in this multiprocessor's L1 may be from two steps ago
        h_all = tl.load(exchange + (step % 2) * BUFFER + at_all, mask=all_here, other=0.0, cache_modifier=".cg")
        z = tl.dot(weights, h_all, input_precision=PRECISION)
        if GATE_COUNT == 1:
            z += x_0
            new_h = tanh(z) if CELL == "rnn_tanh" else tl.where(z > 0, z, tl.where(z != z, z, 0.0))
        else:
            z_0, z_1, z_2, z_3 = gates_apart(z, UNITS, BLOCK_BATCH)
            if CELL == "lstm":
                a_0, a_1, a_2, a_3 = tl.sigmoid(z_0 + x_0), tl.sigmoid(z_1 + x_1), tanh(z_2 + x_2), tl.sigmoid(z_3 + x_3)
                c = tl.where(real, a_1 * c + a_0 * a_2, c)
                new_h = a_3 * tanh(c)
            else:  # z_3 is the new gate's product with the layer below, which the reset gate does not touch
                a_0 = tl.sigmoid(z_0 + x_0 + b_0)
                a_1 = tl.sigmoid(z_1 + x_1 + b_1)
                a_3 = z_2 + b_2
                a_2 = tanh(z_3 + x_2 + a_0 * a_3)
                new_h = a_2 + a_1 * (h - a_2)
        h = tl.where(real, new_h, h)
        following = exchange + ((step + 1) % 2) * BUFFER + at
        tl.store(following, h.to(dtype), mask=mine, cache_modifier=".cg")
        if DROPOUT:
            tl.store(following + STATE, (h.to(dtype).to(tl.float32) * scale).to(dtype), mask=mine, cache_modifier=".cg")
        arrive(counter)

        tl.store(hs + t * STATE + at, h.to(dtype), mask=now)
        if CELL == "lstm":
            tl.store(cs + t * STATE + at, c, mask=now)
        if GATE_COUNT > 1:
            keep = saved + t * (4 * STATE) + at_saved
            tl.store(keep, a_0.to(dtype), mask=now)
            tl.store(keep + HIDDEN, a_1.to(dtype), mask=now)
            tl.store(keep + 2 * HIDDEN, a_2.to(dtype), mask=now)
            tl.store(keep + 3 * HIDDEN, a_3.to(dtype), mask=now)
    tl.store(h_last + at, h, mask=mine)
    if CELL == "lstm":
        tl.store(c_last + at, c, mask=mine)


@triton.jit
def gates_together(zero, one, two, three, UNITS: tl.constexpr, BATCH: tl.constexpr):
    """The inverse of `gates_apart`."""
    z = tl.join(tl.join(zero, one), tl.join(two, three))
    return tl.reshape(tl.permute(z, (3, 2, 0, 1)), (4 * UNITS, BATCH))


@triton.jit
def sum_of_parts(
    parts, at, here, HIDDEN: tl.constexpr, BATCH: tl.constexpr, BLOCKS: tl.constexpr, CHUNK: tl.constexpr,
    UNITS: tl.constexpr, BLOCK_BATCH: tl.constexpr,
):  # fmt: skip
    """[UNITS, BLOCK_BATCH]: what the blocks of a layer wrote for this block's units, added up, always in the same order."""
    total = tl.zeros((UNITS, BLOCK_BATCH), tl.float32)
    for first in tl.static_range(0, BLOCKS, CHUNK):
        block = first + tl.arange(0, CHUNK)
        from_each = parts + block[:, None, None] * (BATCH * HIDDEN) + at[None, :, :]
        inside = (block < BLOCKS)[:, None, None] & here[None, :, :]
        total += tl.sum(tl.load(from_each, mask=inside, other=0.0, cache_modifier=".cg"), 0)
    return total


@triton.jit
def backward_kernel(
    d_hs, d_h_last, d_c_last, w, h0, c0, hs, cs, saved, lengths, scales,
    dz, dn, d_h0, d_c0, exchange, arrived,
    CELL: tl.constexpr, TIME: tl.constexpr, DIRECTIONS: tl.constexpr, LAYERS: tl.constexpr, BATCH: tl.constexpr,
    HIDDEN: tl.constexpr, REVERSE: tl.constexpr, DROPOUT: tl.constexpr, GATE_COUNT: tl.constexpr,
    WEIGHT_GATES: tl.constexpr, PADDED_GATES: tl.constexpr, UNITS: tl.constexpr, BLOCK_BATCH: tl.constexpr,
    PADDED_HIDDEN: tl.constexpr, BLOCKS: tl.constexpr, GROUP: tl.constexpr, PRECISION: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Each block turns the gradient of its units' state into that of their gates, multiplies it with the weights that it holds
    (the same as in the forward pass), and so has its part of the gradient of every unit's state in the step before, and of the
    output of the layer below; after the barrier each block adds up the parts of its own units.
    """
    chain = tl.program_id(2)
    layer = chain // DIRECTIONS
    direction = chain % DIRECTIONS
    flipped = direction if DIRECTIONS == 2 else REVERSE
    counter = arrived + direction * tl.num_programs(1) + tl.program_id(1)
    unit = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    row = tl.program_id(1) * BLOCK_BATCH + tl.arange(0, BLOCK_BATCH)
    mine = (unit < HIDDEN)[:, None] & (row < BATCH)[None, :]
    at = (chain * BATCH + row)[None, :] * HIDDEN + unit[:, None]
    at_output = (direction * BATCH + row)[None, :] * HIDDEN + unit[:, None]
    at_gates = (chain * BATCH + row)[None, :] * (GATE_COUNT * HIDDEN) + unit[:, None]
    at_saved = (chain * BATCH + row)[None, :] * (4 * HIDDEN) + unit[:, None]
    STATE: tl.constexpr = DIRECTIONS * LAYERS * BATCH * HIDDEN
    dtype = dz.dtype.element_ty

    INPUTS: tl.constexpr = 2 if LAYERS > 1 else 1
    term = tl.arange(0, INPUTS * PADDED_HIDDEN)
    source, every = term // PADDED_HIDDEN, term % PADDED_HIDDEN
    term_here = (every < HIDDEN) & (source <= layer)
    PART: tl.constexpr = BATCH * HIDDEN
    PARTS: tl.constexpr = DIRECTIONS * LAYERS * INPUTS * BLOCKS * PART
    own_parts = exchange + chain * (INPUTS * BLOCKS * PART)  # [2, chains, own or below, blocks, batch, hidden]
    my_part = own_parts + (source * BLOCKS + tl.program_id(0))[:, None] * PART + row[None, :] * HIDDEN + every[:, None]
    parts_above = own_parts + (INPUTS + 1) * BLOCKS * PART
    my_units = row[None, :] * HIDDEN + unit[:, None]

    column = tl.arange(0, PADDED_GATES * UNITS)
    column_gate, column_unit = column // UNITS, tl.program_id(0) * UNITS + column % UNITS
    weight_here = term_here[:, None] & ((column_gate < WEIGHT_GATES) & (column_unit < HIDDEN))[None, :]
    weight_row = (chain * INPUTS + source) * HIDDEN + every
    weight_at = weight_row[:, None] * (WEIGHT_GATES * HIDDEN) + (column_gate * HIDDEN + column_unit)[None, :]
    weights = tl.load(w + weight_at, mask=weight_here, other=0.0)

    past = tl.load(d_h_last + at, mask=mine, other=0.0)  # the gradient of h that does not come through a product
    dc = past
    if CELL == "lstm":
        dc = tl.load(d_c_last + at, mask=mine, other=0.0)
    length = tl.load(lengths + row, mask=row < BATCH, other=0)

    for step in range(TIME + LAYERS - 1):
        index = step - (LAYERS - 1 - layer)
        active = (index >= 0) & (index < TIME)
        now = mine & active
        t = (TIME - 1 - index + flipped * (2 * index - TIME + 1)).to(tl.int64)
        real = ((t < length) & active)[None, :]
        first = index == TIME - 1  # in the order of the forward pass
        before = (t - 1 + 2 * flipped) * STATE + at
        keep = saved + t * (4 * STATE) + at_saved
        output = d_hs + t * (DIRECTIONS * BATCH * HIDDEN) + at_output
        dh = past + tl.load(output, mask=now & (layer == LAYERS - 1), other=0.0).to(tl.float32)
        if GATE_COUNT > 1:
            a_0 = tl.load(keep, mask=now, other=0.0).to(tl.float32)
            a_1 = tl.load(keep + HIDDEN, mask=now, other=0.0).to(tl.float32)
            a_2 = tl.load(keep + 2 * HIDDEN, mask=now, other=0.0).to(tl.float32)
            a_3 = tl.load(keep + 3 * HIDDEN, mask=now, other=0.0).to(tl.float32)
        if CELL == "lstm":
            c_before = tl.load(cs + before, mask=now & (index < TIME - 1), other=0.0)
            c_before += tl.load(c0 + at, mask=mine & first, other=0.0)
            tanh_c = tanh(tl.load(cs + t * STATE + at, mask=now, other=0.0))
        elif CELL == "gru":
            h_before = tl.load(hs + before, mask=now & (index < TIME - 1), other=0.0).to(tl.float32)
            h_before += tl.load(h0 + at, mask=mine & first, other=0.0)
        else:
            h = tl.load(hs + t * STATE + at, mask=now, other=0.0).to(tl.float32)
        if DROPOUT:
            upward = scales + (layer.to(tl.int64) * TIME + t) * PART + my_units
            scale = tl.load(upward, mask=now & (layer < LAYERS - 1), other=0.0).to(tl.float32)
        wait(counter, step * GROUP)

        buffer = (step % 2) * PARTS
        dh += sum_of_parts(
            own_parts + buffer, my_units, now & (index > 0), HIDDEN, BATCH, BLOCKS, CHUNK, UNITS, BLOCK_BATCH
        )  # fmt: skip
        if LAYERS > 1:
            above = sum_of_parts(
                parts_above + buffer, my_units, now & (layer < LAYERS - 1), HIDDEN, BATCH, BLOCKS, CHUNK, UNITS, BLOCK_BATCH
            )  # fmt: skip
            dh += above * scale if DROPOUT else above
        if GATE_COUNT == 1:
            z = dh * (1.0 - h * h) if CELL == "rnn_tanh" else tl.where(h > 0, dh, 0.0)
            z = tl.where(real, z, 0.0).to(dtype)
            carried = tl.zeros_like(dh)
        else:
            if CELL == "lstm":
                d_cell = dc + dh * a_3 * (1.0 - tanh_c * tanh_c)
                z_0 = tl.where(real, d_cell * a_2 * a_0 * (1.0 - a_0), 0.0).to(dtype)
                z_1 = tl.where(real, d_cell * c_before * a_1 * (1.0 - a_1), 0.0).to(dtype)
                z_2 = tl.where(real, d_cell * a_0 * (1.0 - a_2 * a_2), 0.0).to(dtype)
                z_3 = tl.where(real, dh * tanh_c * a_3 * (1.0 - a_3), 0.0).to(dtype)
                dc = tl.where(real, d_cell * a_1, dc)
                carried = tl.zeros_like(dh)
            else:
                d_new = dh * (1.0 - a_1) * (1.0 - a_2 * a_2)
                z_0 = tl.where(real, d_new * a_3 * a_0 * (1.0 - a_0), 0.0).to(dtype)
                z_1 = tl.where(real, dh * (h_before - a_2) * a_1 * (1.0 - a_1), 0.0).to(dtype)
                z_2 = tl.where(real, d_new * a_0, 0.0).to(dtype)
                z_3 = tl.where(real, d_new, 0.0).to(dtype)
                carried = dh * a_1
            z = gates_together(z_0, z_1, z_2, z_3, UNITS, BLOCK_BATCH)
        past = tl.where(real, carried, dh)
        part = tl.dot(weights, z, input_precision=PRECISION)
        part_here = (term_here & active)[:, None] & (row < BATCH)[None, :]
        tl.store(my_part + ((step + 1) % 2) * PARTS, part, mask=part_here, cache_modifier=".cg")
        arrive(counter)

        out = dz + t * (GATE_COUNT * STATE) + at_gates
        if GATE_COUNT == 1:
            tl.store(out, z, mask=now)
        else:
            tl.store(out, z_0, mask=now)
            tl.store(out + HIDDEN, z_1, mask=now)
            tl.store(out + 2 * HIDDEN, z_2, mask=now)
        if CELL == "lstm":
            tl.store(out + 3 * HIDDEN, z_3, mask=now)
        elif CELL == "gru":
            tl.store(dn + t * STATE + at, z_3, mask=now)
    wait(counter, (TIME + LAYERS - 1) * GROUP)
    # Where this layer left its last parts: it went through its last step `layer` steps before the end.
    last = own_parts + ((TIME + LAYERS - 1 - layer) % 2) * PARTS
    dh = past + sum_of_parts(last, my_units, mine, HIDDEN, BATCH, BLOCKS, CHUNK, UNITS, BLOCK_BATCH)
    tl.store(d_h0 + at, dh, mask=mine)
    if CELL == "lstm":
        tl.store(d_c0 + at, dc, mask=mine)
