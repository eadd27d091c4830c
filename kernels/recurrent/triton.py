"""Persistent kernels: one launch runs a whole layer, all steps and both directions.

The recurrent weights of a block's units are read once and stay on the chip; the state goes from block to block through the L2
cache, in two buffers that take turns, so that one barrier per step is enough. The input product of all steps comes before the
launch and the weight gradient of all steps after it, each as one large matrix product.

Forward keeps, per step and unit, the state (and for an LSTM the cell) and the activations of the gates; backward reads them
back and runs the same way with the transposed weights.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import triton
import triton.language as tl

from kernels.launch import launch, like, power_of_two
from kernels.recurrent import config
from kernels.recurrent.cells import CELLS, CellWeights, bias_gradient, weight_gradient
from kernels.triton_math import tanh

SAVED = {"rnn_tanh": 0, "rnn_relu": 0, "lstm": 4, "gru": 4}  # values per unit and step kept for the backward pass
PARTS_AT_ONCE = 4096  # values that a block adds up at a time: 32 registers of each of 128 threads


@triton.jit
def barrier(arrived, target):
    """Waits until `target` arrivals were counted: each block of the group arrives once per step.

    What a block stored before is seen by every block after: its threads meet, then one releases; one acquires, then all meet.
    """
    tl.debug_barrier()
    tl.atomic_add(arrived, 1, sem="release", scope="gpu")
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
def forward_kernel(
    x_proj, w_h, b_h, h0, c0, lengths,
    hs, cs, saved, h_last, c_last, exchange, arrived,
    CELL: tl.constexpr, TIME: tl.constexpr, DIRECTIONS: tl.constexpr, BATCH: tl.constexpr, HIDDEN: tl.constexpr,
    REVERSE: tl.constexpr, GATE_COUNT: tl.constexpr, PADDED_GATES: tl.constexpr, UNITS: tl.constexpr,
    BLOCK_BATCH: tl.constexpr, PADDED_HIDDEN: tl.constexpr, GROUP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    direction = tl.program_id(2)
    flipped = direction if DIRECTIONS == 2 else REVERSE  # 1 where time is read from its end
    counter = arrived + direction * tl.num_programs(1) + tl.program_id(1)
    unit = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    row = tl.program_id(1) * BLOCK_BATCH + tl.arange(0, BLOCK_BATCH)
    every = tl.arange(0, PADDED_HIDDEN)
    mine = (unit < HIDDEN)[:, None] & (row < BATCH)[None, :]
    all_here = (every < HIDDEN)[:, None] & (row < BATCH)[None, :]
    at = (direction * BATCH + row)[None, :] * HIDDEN + unit[:, None]  # in an array [directions, batch, hidden]
    at_all = (direction * BATCH + row)[None, :] * HIDDEN + every[:, None]
    at_gates = (direction * BATCH + row)[None, :] * (GATE_COUNT * HIDDEN) + unit[:, None]
    at_saved = (direction * BATCH + row)[None, :] * (4 * HIDDEN) + unit[:, None]
    STATE: tl.constexpr = DIRECTIONS * BATCH * HIDDEN
    dtype = hs.dtype.element_ty

    column = tl.arange(0, PADDED_GATES * UNITS)
    column_gate, column_unit = column // UNITS, tl.program_id(0) * UNITS + column % UNITS
    weight_here = ((column_gate < GATE_COUNT) & (column_unit < HIDDEN))[:, None] & (every < HIDDEN)[None, :]
    weight_at = (direction * HIDDEN + every)[None, :] * (GATE_COUNT * HIDDEN) + (column_gate * HIDDEN + column_unit)[:, None]
    weights = tl.load(w_h + weight_at, mask=weight_here, other=0.0)

    h = tl.load(h0 + at, mask=mine, other=0.0)
    c = h
    if CELL == "lstm":
        c = tl.load(c0 + at, mask=mine, other=0.0)
    length = tl.load(lengths + row, mask=row < BATCH, other=0)
    if CELL == "gru":
        bias = b_h + direction * 3 * HIDDEN + unit
        bias_r = tl.load(bias, mask=unit < HIDDEN, other=0.0).to(tl.float32)[:, None]
        bias_z = tl.load(bias + HIDDEN, mask=unit < HIDDEN, other=0.0).to(tl.float32)[:, None]
        bias_n = tl.load(bias + 2 * HIDDEN, mask=unit < HIDDEN, other=0.0).to(tl.float32)[:, None]
    tl.store(exchange + at, h.to(dtype), mask=mine, cache_modifier=".cg")
    barrier(counter, GROUP)

    for step in range(TIME):
        t = (step + flipped * (TIME - 1 - 2 * step)).to(tl.int64)
        # .cg reads the L2 cache: a line in this multiprocessor's L1 may be from two steps ago
        h_all = tl.load(exchange + (step % 2) * STATE + at_all, mask=all_here, other=0.0, cache_modifier=".cg")
        z = tl.dot(weights, h_all, input_precision=PRECISION)
        x = x_proj + t * (DIRECTIONS * BATCH * GATE_COUNT * HIDDEN) + at_gates
        keep = saved + t * (DIRECTIONS * BATCH * 4 * HIDDEN) + at_saved
        real = (t < length)[None, :]
        x_0 = tl.load(x, mask=mine, other=0.0).to(tl.float32)
        if GATE_COUNT == 1:
            z += x_0
            new_h = tanh(z) if CELL == "rnn_tanh" else tl.where(z > 0, z, tl.where(z != z, z, 0.0))
        else:
            z_0, z_1, z_2, z_3 = gates_apart(z, UNITS, BLOCK_BATCH)
            x_1 = tl.load(x + HIDDEN, mask=mine, other=0.0).to(tl.float32)
            x_2 = tl.load(x + 2 * HIDDEN, mask=mine, other=0.0).to(tl.float32)
            if CELL == "lstm":
                x_3 = tl.load(x + 3 * HIDDEN, mask=mine, other=0.0).to(tl.float32)
                i, f, g, o = tl.sigmoid(z_0 + x_0), tl.sigmoid(z_1 + x_1), tanh(z_2 + x_2), tl.sigmoid(z_3 + x_3)
                new_c = f * c + i * g
                new_h = o * tanh(new_c)
                c = tl.where(real, new_c, c)
                tl.store(cs + t * STATE + at, c, mask=mine)
                tl.store(keep, i.to(dtype), mask=mine)
                tl.store(keep + HIDDEN, f.to(dtype), mask=mine)
                tl.store(keep + 2 * HIDDEN, g.to(dtype), mask=mine)
                tl.store(keep + 3 * HIDDEN, o.to(dtype), mask=mine)
            else:
                r, u = tl.sigmoid(z_0 + bias_r + x_0), tl.sigmoid(z_1 + bias_z + x_1)
                y_n = z_2 + bias_n
                n = tanh(x_2 + r * y_n)
                new_h = n + u * (h - n)
                tl.store(keep, r.to(dtype), mask=mine)
                tl.store(keep + HIDDEN, u.to(dtype), mask=mine)
                tl.store(keep + 2 * HIDDEN, n.to(dtype), mask=mine)
                tl.store(keep + 3 * HIDDEN, y_n.to(dtype), mask=mine)
        h = tl.where(real, new_h, h)
        tl.store(exchange + ((step + 1) % 2) * STATE + at, h.to(dtype), mask=mine, cache_modifier=".cg")
        tl.store(hs + t * STATE + at, h.to(dtype), mask=mine)
        barrier(counter, (step + 2) * GROUP)
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
    parts, at, here, HIDDEN: tl.constexpr, BATCH: tl.constexpr, GROUP: tl.constexpr, CHUNK: tl.constexpr,
    UNITS: tl.constexpr, BLOCK_BATCH: tl.constexpr,
):  # fmt: skip
    """[UNITS, BLOCK_BATCH]: what the blocks of the group wrote for this block's units, added up, always in the same order."""
    total = tl.zeros((UNITS, BLOCK_BATCH), tl.float32)
    for first in tl.static_range(0, GROUP, CHUNK):
        block = first + tl.arange(0, CHUNK)
        from_each = parts + block[:, None, None] * (BATCH * HIDDEN) + at[None, :, :]
        inside = (block < GROUP)[:, None, None] & here[None, :, :]
        total += tl.sum(tl.load(from_each, mask=inside, other=0.0, cache_modifier=".cg"), 0)
    return total


@triton.jit
def backward_kernel(
    d_hs, d_h_last, d_c_last, w_h, h0, c0, hs, cs, saved, lengths,
    dz, dn, d_h0, d_c0, exchange, arrived,
    CELL: tl.constexpr, TIME: tl.constexpr, DIRECTIONS: tl.constexpr, BATCH: tl.constexpr, HIDDEN: tl.constexpr,
    REVERSE: tl.constexpr, GATE_COUNT: tl.constexpr, PADDED_GATES: tl.constexpr, UNITS: tl.constexpr,
    BLOCK_BATCH: tl.constexpr, PADDED_HIDDEN: tl.constexpr, GROUP: tl.constexpr, PRECISION: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    """Each block turns the gradient of its units' state into that of their gates, multiplies it with the weights that it holds
    (the same as in the forward pass), and so has its part of the gradient of every unit's state in the step before; after the
    barrier each block adds up the parts of its own units.
    """
    direction = tl.program_id(2)
    flipped = direction if DIRECTIONS == 2 else REVERSE
    counter = arrived + direction * tl.num_programs(1) + tl.program_id(1)
    unit = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    row = tl.program_id(1) * BLOCK_BATCH + tl.arange(0, BLOCK_BATCH)
    every = tl.arange(0, PADDED_HIDDEN)
    mine = (unit < HIDDEN)[:, None] & (row < BATCH)[None, :]
    all_here = (every < HIDDEN)[:, None] & (row < BATCH)[None, :]
    at = (direction * BATCH + row)[None, :] * HIDDEN + unit[:, None]
    at_gates = (direction * BATCH + row)[None, :] * (GATE_COUNT * HIDDEN) + unit[:, None]
    at_saved = (direction * BATCH + row)[None, :] * (4 * HIDDEN) + unit[:, None]
    STATE: tl.constexpr = DIRECTIONS * BATCH * HIDDEN
    PARTS: tl.constexpr = STATE * GROUP
    dtype = dz.dtype.element_ty
    parts = exchange + direction * (GROUP * BATCH * HIDDEN)  # [2, directions, blocks, batch, hidden]
    my_part = parts + tl.program_id(0) * (BATCH * HIDDEN) + row[None, :] * HIDDEN + every[:, None]
    my_units = row[None, :] * HIDDEN + unit[:, None]

    column = tl.arange(0, PADDED_GATES * UNITS)
    column_gate, column_unit = column // UNITS, tl.program_id(0) * UNITS + column % UNITS
    weight_here = (every < HIDDEN)[:, None] & ((column_gate < GATE_COUNT) & (column_unit < HIDDEN))[None, :]
    weight_at = (direction * HIDDEN + every)[:, None] * (GATE_COUNT * HIDDEN) + (column_gate * HIDDEN + column_unit)[None, :]
    weights = tl.load(w_h + weight_at, mask=weight_here, other=0.0)

    past = tl.load(d_h_last + at, mask=mine, other=0.0)  # the gradient of h that does not come through the recurrent product
    dc = past
    if CELL == "lstm":
        dc = tl.load(d_c_last + at, mask=mine, other=0.0)
    length = tl.load(lengths + row, mask=row < BATCH, other=0)

    for step in range(TIME):
        t = (TIME - 1 - step + flipped * (2 * step - TIME + 1)).to(tl.int64)
        real = (t < length)[None, :]
        first = step == TIME - 1  # in the order of the forward pass
        before = tl.where(first, t, t - 1 + 2 * flipped) * STATE + at
        dh = past + tl.load(d_hs + t * STATE + at, mask=mine, other=0.0).to(tl.float32)
        dh += sum_of_parts(
            parts + (step % 2) * PARTS, my_units, mine & (step > 0), HIDDEN, BATCH, GROUP, CHUNK, UNITS, BLOCK_BATCH
        )  # fmt: skip
        out = dz + t * (GATE_COUNT * STATE) + at_gates
        keep = saved + t * (4 * STATE) + at_saved
        if GATE_COUNT == 1:
            h = tl.load(hs + t * STATE + at, mask=mine, other=0.0).to(tl.float32)
            z = dh * (1.0 - h * h) if CELL == "rnn_tanh" else tl.where(h > 0, dh, 0.0)
            z = tl.where(real, z, 0.0).to(dtype)
            tl.store(out, z, mask=mine)
            past = tl.where(real, 0.0, dh)
        else:
            a_0 = tl.load(keep, mask=mine, other=0.0).to(tl.float32)
            a_1 = tl.load(keep + HIDDEN, mask=mine, other=0.0).to(tl.float32)
            a_2 = tl.load(keep + 2 * HIDDEN, mask=mine, other=0.0).to(tl.float32)
            a_3 = tl.load(keep + 3 * HIDDEN, mask=mine, other=0.0).to(tl.float32)
            if CELL == "lstm":
                c_before = tl.load(cs + before, mask=mine, other=0.0)
                c_before = tl.where(first, tl.load(c0 + at, mask=mine, other=0.0), c_before)
                tanh_c = tanh(tl.load(cs + t * STATE + at, mask=mine, other=0.0))
                d_cell = dc + dh * a_3 * (1.0 - tanh_c * tanh_c)
                z_0 = d_cell * a_2 * a_0 * (1.0 - a_0)
                z_1 = d_cell * c_before * a_1 * (1.0 - a_1)
                z_2 = d_cell * a_0 * (1.0 - a_2 * a_2)
                z_3 = tl.where(real, dh * tanh_c * a_3 * (1.0 - a_3), 0.0).to(dtype)
                tl.store(out + 3 * HIDDEN, z_3, mask=mine)
                dc = tl.where(real, d_cell * a_1, dc)
                past = tl.where(real, 0.0, dh)
            else:
                h_before = tl.load(hs + before, mask=mine, other=0.0).to(tl.float32)
                h_before = tl.where(first, tl.load(h0 + at, mask=mine, other=0.0), h_before)
                d_new = tl.where(real, dh * (1.0 - a_1) * (1.0 - a_2 * a_2), 0.0)
                tl.store(dn + t * STATE + at, d_new.to(dtype), mask=mine)
                z_0 = d_new * a_3 * a_0 * (1.0 - a_0)
                z_1 = dh * (h_before - a_2) * a_1 * (1.0 - a_1)
                z_2 = d_new * a_0
                z_3 = tl.zeros((UNITS, BLOCK_BATCH), dtype)
                past = tl.where(real, dh * a_1, dh)
            z_0, z_1 = tl.where(real, z_0, 0.0).to(dtype), tl.where(real, z_1, 0.0).to(dtype)
            z_2 = tl.where(real, z_2, 0.0).to(dtype)
            tl.store(out, z_0, mask=mine)
            tl.store(out + HIDDEN, z_1, mask=mine)
            tl.store(out + 2 * HIDDEN, z_2, mask=mine)
            z = gates_together(z_0, z_1, z_2, z_3, UNITS, BLOCK_BATCH)
        part = tl.dot(weights, z, input_precision=PRECISION)
        tl.store(my_part + ((step + 1) % 2) * PARTS, part, mask=all_here, cache_modifier=".cg")
        barrier(counter, (step + 1) * GROUP)
    dh = past + sum_of_parts(
        parts + (TIME % 2) * PARTS, my_units, mine, HIDDEN, BATCH, GROUP, CHUNK, UNITS, BLOCK_BATCH
    )  # fmt: skip
    tl.store(d_h0 + at, dh, mask=mine)
    if CELL == "lstm":
        tl.store(d_c0 + at, dc, mask=mine)


def stack(
    cell: str,
    x: jax.Array,
    layers: Sequence[tuple[CellWeights, ...]],
    initial_state: tuple[jax.Array, ...],
    seq_lengths: jax.Array | None,
    reverse: bool,
    dropout_scales: Sequence[jax.Array | None],
    interpret: bool,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """As `xla.stack`."""
    x = jnp.swapaxes(x, 0, 1)
    lengths = jnp.full(x.shape[1], x.shape[0], jnp.int32) if seq_lengths is None else seq_lengths.astype(jnp.int32)
    finals = []
    for weights, scale, *state in zip(layers, dropout_scales, *initial_state, strict=True):
        if scale is not None:
            x = x * scale.astype(x.dtype)
        x_proj = jnp.stack([_input_product(cell, x, w) for w in weights], 1)
        w_h = jnp.stack([w.w_h for w in weights])
        b_h = None
        if cell == "gru":
            b_h = jnp.stack([jnp.zeros(w_h.shape[2], x.dtype) if w.b_h is None else w.b_h for w in weights])
        hs, final = layer((cell, reverse, interpret), x_proj, w_h, b_h, tuple(state), lengths)
        if seq_lengths is not None:
            hs = jnp.where((jnp.arange(x.shape[0])[:, None] < lengths)[:, None, :, None], hs, 0)
        x = jnp.concatenate(list(jnp.unstack(hs, axis=1)), -1)
        finals.append(final)
    return jnp.swapaxes(x, 0, 1), tuple(jnp.stack(parts) for parts in zip(*finals, strict=True))


def _input_product(cell: str, x: jax.Array, w: CellWeights) -> jax.Array:
    biases = [w.b_x] if cell == "gru" else [w.b_x, w.b_h]  # the GRU's b_h goes through its reset gate
    return sum((b for b in biases if b is not None), x @ w.w_x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def layer(
    static: tuple[str, bool, bool],
    x_proj: jax.Array,
    w_h: jax.Array,
    b_h: jax.Array | None,
    state: tuple[jax.Array, ...],
    lengths: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """x_proj [time, directions, batch, gates * hidden] to the states [time, directions, batch, hidden] and the final state.

    static: cell, whether a single direction reads backward in time, whether to interpret.
    """
    return _forward(static, x_proj, w_h, b_h, state, lengths)[:2]


def _constants(cell: str, reverse: bool, x_proj: jax.Array) -> tuple[config.Plan, dict]:
    time, directions, batch, columns = x_proj.shape
    hidden = columns // CELLS[cell].gates
    plan = config.plan(CELLS[cell].gates, hidden, batch, directions, x_proj.dtype.itemsize)
    assert isinstance(plan, config.Plan)  # `reason` has asked before
    return plan, {
        "CELL": cell,
        "TIME": time,
        "DIRECTIONS": directions,
        "BATCH": batch,
        "HIDDEN": hidden,
        "REVERSE": int(reverse),
        "GATE_COUNT": CELLS[cell].gates,
        "PADDED_GATES": 1 if CELLS[cell].gates == 1 else 4,
        "UNITS": plan.units,
        "BLOCK_BATCH": plan.batch,
        "PADDED_HIDDEN": plan.padded_hidden,
        "GROUP": plan.group,
        "PRECISION": "tf32x3",  # float32 products in three passes: a recurrence adds up what one pass of tf32 leaves out
    }


def _forward(static, x_proj, w_h, b_h, state, lengths):
    cell, reverse, interpret = static
    plan, constants = _constants(cell, reverse, x_proj)
    time, directions, batch, _ = x_proj.shape
    hidden = constants["HIDDEN"]
    none = jnp.zeros((1,), jnp.float32)
    each = (time, directions, batch, hidden)
    some = lambda wanted, shape, dtype: like(x_proj, shape if wanted else (1,), dtype)
    hs, cs, saved, h_last, c_last, _, _ = launch(
        forward_kernel,
        x_proj, w_h, none if b_h is None else b_h, state[0], state[1] if cell == "lstm" else none, lengths,
        outputs=[
            like(x_proj, each),
            some(cell == "lstm", each, jnp.float32),
            some(SAVED[cell], (*each[:3], 4 * hidden), x_proj.dtype),
            like(x_proj, each[1:], jnp.float32),
            some(cell == "lstm", each[1:], jnp.float32),
            like(x_proj, (2, *each[1:])),
            like(x_proj, (directions, plan.grid[1]), jnp.int32),
        ],
        zeroed=(6,),
        grid=plan.grid,
        interpret=interpret,
        num_warps=plan.num_warps,
        num_stages=1,  # a pipelined load would cross the barrier
        together=True,
        **constants,
    )  # fmt: skip
    return hs, ((h_last, c_last) if cell == "lstm" else (h_last,)), (cs, saved)


def _layer_forward(static, x_proj, w_h, b_h, state, lengths):
    hs, final, kept = _forward(static, x_proj, w_h, b_h, state, lengths)
    return (hs, final), (x_proj, w_h, b_h, state, lengths, hs, kept)


def _layer_backward(static, residuals, cotangents):
    cell, reverse, interpret = static
    x_proj, w_h, b_h, state, lengths, hs, (cs, saved) = residuals
    d_hs, d_final = cotangents
    plan, constants = _constants(cell, reverse, x_proj)
    none = jnp.zeros((1,), jnp.float32)
    is_lstm, is_gru = cell == "lstm", cell == "gru"
    dz, dn, d_h0, d_c0, _, _ = launch(
        backward_kernel,
        d_hs, d_final[0], d_final[1] if is_lstm else none, w_h, state[0], state[1] if is_lstm else none, hs, cs, saved, lengths,
        outputs=[
            like(x_proj),
            like(x_proj, hs.shape if is_gru else (1,)),
            like(x_proj, hs.shape[1:], jnp.float32),
            like(x_proj, hs.shape[1:] if is_lstm else (1,), jnp.float32),
            like(x_proj, (2, hs.shape[1], plan.group, *hs.shape[2:]), jnp.float32),
            like(x_proj, (hs.shape[1], plan.grid[1]), jnp.int32),
        ],
        zeroed=(5,),
        grid=plan.grid,
        interpret=interpret,
        num_warps=plan.num_warps,
        num_stages=1,
        together=True,
        CHUNK=min(power_of_two(plan.group), max(1, PARTS_AT_ONCE // (plan.units * plan.batch))),
        **constants,
    )  # fmt: skip
    h_before = jnp.stack(
        [
            jnp.concatenate([hs[1:, d], h0[None]] if (d == 1 or reverse) else [h0[None], hs[:-1, d]])
            for d, h0 in enumerate(state[0].astype(hs.dtype))
        ],
        1,
    )
    accumulated = dz.astype(jnp.float32)
    d_w_h = weight_gradient(h_before.astype(jnp.float32), accumulated, w_h)
    d_b_h = None if b_h is None else bias_gradient(accumulated, b_h[:, None])[:, 0]
    dx = jnp.concatenate([dz[..., : 2 * hs.shape[-1]], dn], -1) if is_gru else dz
    return dx, d_w_h, d_b_h, ((d_h0, d_c0) if is_lstm else (d_h0,)), None


layer.defvjp(_layer_forward, _layer_backward)
