"""Runs a stack of layers through the persistent kernels: launches, residuals, and the matrix products around them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kernels.recurrent import config
from kernels.recurrent.cells import CELLS, CellWeights, weight_gradient
from kernels.recurrent.triton import backward_kernel, forward_kernel
from kernels.runtime import dispatch
from kernels.runtime.derivatives import differentiable
from kernels.runtime.launch import launch, like, unrecorded
from kernels.runtime.sizes import power_of_two
from kernels.verification import aot, residency

SAVED = {"rnn_tanh": 0, "rnn_relu": 0, "lstm": 4, "gru": 4}  # values per unit and step among the residuals
PARTS_AT_ONCE = 2048  # values that a block adds up at a time: 8 registers of each of 256 threads, what there is left of them


class Static(NamedTuple):
    """What a launch is specialized for, besides its shapes."""

    cell: str
    reverse: bool  # whether a single direction reads backward in time
    layers: int  # run as a wavefront
    implementation: str


class Chains(NamedTuple):
    """The weights that the kernels hold. A chain is a direction of a layer, or a layer of a stack.

    Attributes:
      w_h: [chains, hidden, gates * hidden].
      b_h: [chains, gates * hidden] for a GRU, else None: other cells have it in their input product or in b_x.
      w_x: [layers - 1, hidden, gates * hidden], for the layers above the first; None for one layer.
      b_x: [layers - 1, gates * hidden]; None for one layer.
    """

    w_h: jax.Array
    b_h: jax.Array | None
    w_x: jax.Array | None
    b_x: jax.Array | None


def stack(
    cell: str,
    x: jax.Array,
    layers: Sequence[tuple[CellWeights, ...]],
    initial_state: tuple[jax.Array, ...],
    seq_lengths: jax.Array | None,
    reverse: bool,
    dropout_scales: Sequence[jax.Array | None],
    implementation: str,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """As `xla.stack`, as many layers per launch as the device holds."""
    x = jnp.swapaxes(x, 0, 1)
    lengths = jnp.full(x.shape[1], x.shape[0], jnp.int32) if seq_lengths is None else seq_lengths.astype(jnp.int32)
    at_once = config.layers_at_once(cell, x.shape[1], layers, x.dtype.itemsize)
    finals = []
    for first in range(0, len(layers), at_once):
        some = slice(first, first + at_once)
        weights, scale, state = layers[some], dropout_scales[some], [part[some] for part in initial_state]
        if scale[0] is not None:
            x = x * scale[0].astype(x.dtype)
        x_proj = jnp.stack([_input_product(cell, x, w) for w in weights[0]], 1)
        between = None if len(weights) == 1 or scale[1] is None else jnp.stack(scale[1:])  # type: ignore[arg-type]
        static = Static(cell, reverse, len(weights), implementation)
        chained = tuple(part.reshape(-1, *part.shape[2:]) for part in state)
        hs, final = chains(static, x_proj, _chains(cell, weights), chained, lengths, between)
        if seq_lengths is not None:
            hs = jnp.where((jnp.arange(x.shape[0])[:, None] < lengths)[:, None, :, None], hs, 0)
        x = jnp.concatenate(list(jnp.unstack(hs, axis=1)), -1)
        finals.append([part.reshape(before.shape) for part, before in zip(final, state, strict=True)])
    return jnp.swapaxes(x, 0, 1), tuple(jnp.concatenate(parts) for parts in zip(*finals, strict=True))


def reason(*arguments: Any) -> str | None:
    """Why `stack` cannot run compiled with these arguments, forward or backward; None if it can. It compiles the kernels."""

    def with_gradients(x, layers, state):
        cell, _, _, _, *others = arguments
        outputs, pullback = jax.vjp(lambda *given: stack(cell, *given, *others), x, layers, state)
        return pullback(outputs)

    try:
        with unrecorded():
            jax.eval_shape(with_gradients, *arguments[1:4])
    except (residency.NotResidentError, aot.CompilationError) as error:
        return str(error)
    return None


def _biases(cell: str, w: CellWeights) -> list[jax.Array]:
    """Those that are added to the input product: the GRU's b_h goes through its reset gate."""
    return [b for b in ([w.b_x] if cell == "gru" else [w.b_x, w.b_h]) if b is not None]


def _input_product(cell: str, x: jax.Array, w: CellWeights) -> jax.Array:
    return sum(_biases(cell, w), x @ w.w_x)


def _chains(cell: str, layers: Sequence[tuple[CellWeights, ...]]) -> Chains:
    every, above = [w for layer in layers for w in layer], [layer[0] for layer in layers[1:]]
    none = jnp.zeros(every[0].w_h.shape[1], every[0].w_h.dtype)
    return Chains(
        jnp.stack([w.w_h for w in every]),
        jnp.stack([none if w.b_h is None else w.b_h for w in every]) if cell == "gru" else None,
        jnp.stack([w.w_x for w in above]) if above else None,
        jnp.stack([sum(_biases(cell, w), none) for w in above]) if above else None,
    )


def _held(cell: str, weights: Chains) -> jax.Array:
    """What a block multiplies with: w_h, and in a stack w_x below it, [chains, (1 or 2) * hidden, gates * hidden].

    A GRU in a stack has four columns of gates: its new gate's two products stay apart, since only one of them is reset.
    """
    if weights.w_x is None:
        return weights.w_h
    w_h, w_x = weights.w_h, jnp.concatenate([jnp.zeros_like(weights.w_h[:1]), weights.w_x])
    if cell == "gru":
        first_two = 2 * w_h.shape[1]
        none = jnp.zeros_like(w_h[..., first_two:])
        w_h = jnp.concatenate([w_h, none], -1)
        w_x = jnp.concatenate([w_x[..., :first_two], none, w_x[..., first_two:]], -1)
    return jnp.concatenate([w_h, w_x], 1)


def _launch_options(static: Static, x_proj: jax.Array, scales: jax.Array | None) -> tuple[config.Plan, dict[str, Any]]:
    time, directions, batch, columns = x_proj.shape
    gates = CELLS[static.cell].gates
    hidden = columns // gates
    plan = config.plan(gates, hidden, batch, directions, x_proj.dtype.itemsize, static.layers)
    assert isinstance(plan, config.Plan)  # `reason` has asked before
    return plan, {
        "grid": plan.grid,
        "implementation": static.implementation,
        "num_warps": plan.num_warps,
        "num_stages": 1,  # a pipelined load would cross the barrier
        "cooperative": True,
        "check": residency.require,
        "CELL": static.cell,
        "TIME": time,
        "DIRECTIONS": directions,
        "LAYERS": static.layers,
        "BATCH": batch,
        "HIDDEN": hidden,
        "REVERSE": int(static.reverse),
        "DROPOUT": int(scales is not None),
        "GATE_COUNT": gates,
        "WEIGHT_GATES": 4 if static.cell == "gru" and static.layers > 1 else gates,
        "PADDED_GATES": 1 if gates == 1 else 4,
        "UNITS": plan.units,
        "BLOCK_BATCH": plan.batch,
        "PADDED_HIDDEN": plan.padded_hidden,
        "BLOCKS": plan.grid[0],
        "GROUP": plan.group,
        "PRECISION": "tf32x3",  # float32 products in three passes: a recurrence adds up what one pass of tf32 leaves out
    }


def chains(
    static: Static,
    x_proj: jax.Array,
    weights: Chains,
    state: tuple[jax.Array, ...],
    lengths: jax.Array,
    scales: jax.Array | None,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """One launch: x_proj [time, directions, batch, gates * hidden] to the last layer's outputs and all final states.

    state: each [chains, batch, hidden]. scales: what multiplies the input of each layer above the first, [layers - 1, time,
    batch, hidden], or None. Outputs are [time, directions, batch, hidden]; final states are shaped as `state`.
    """

    def plain(*_):
        cell = static.cell.partition("_")[0]
        reason = 'its kernels have the first gradient alone; "xla" has every derivative'
        raise dispatch.ImplementationError(f"implementation: {cell} cannot be differentiated so: {reason}")

    forward, backward = functools.partial(_chains_forward, static), functools.partial(_chains_backward, static)
    return differentiable(plain, forward, backward)(x_proj, weights, state, lengths, scales)


def _chains_forward(static, x_proj, weights, state, lengths, scales):
    plan, options = _launch_options(static, x_proj, scales)
    time, directions, batch, _ = x_proj.shape
    each = (directions * static.layers, batch, options["HIDDEN"])
    none = jnp.zeros((1,), jnp.float32)
    is_lstm = static.cell == "lstm"
    some = lambda wanted, shape, dtype: like(x_proj, shape if wanted else (1,), dtype)
    b_x = none if weights.b_x is None else jnp.concatenate([jnp.zeros_like(weights.b_x[:1]), weights.b_x])
    hs, cs, saved, h_last, c_last, _, _ = launch(
        forward_kernel,
        x_proj, _held(static.cell, weights), b_x, none if weights.b_h is None else weights.b_h, state[0],
        state[1] if is_lstm else none, lengths, none if scales is None else scales,
        outputs=[
            like(x_proj, (time, *each)),
            some(is_lstm, (time, *each), jnp.float32),
            some(SAVED[static.cell], (time, *each[:2], 4 * each[2]), x_proj.dtype),
            like(x_proj, each, jnp.float32),
            some(is_lstm, each, jnp.float32),
            like(x_proj, (2, 1 + options["DROPOUT"], *each)),
            like(x_proj, (directions, plan.grid[1]), jnp.int32),
        ],
        zeroed_outputs=(6,),
        **options,
    )  # fmt: skip
    final = (h_last, c_last) if is_lstm else (h_last,)
    return (hs[:, -directions:], final), (x_proj, weights, state, lengths, scales, hs, cs, saved)


def _chains_backward(static, residuals, cotangents):
    x_proj, weights, state, lengths, scales, hs, cs, saved = residuals
    d_hs, d_final = cotangents
    plan, options = _launch_options(static, x_proj, scales)
    directions, columns = x_proj.shape[1], x_proj.shape[3]
    none = jnp.zeros((1,), jnp.float32)
    is_lstm, is_gru = static.cell == "lstm", static.cell == "gru"
    inputs = 1 if static.layers == 1 else 2
    dz, dn, d_h0, d_c0, _, _ = launch(
        backward_kernel,
        d_hs, d_final[0], d_final[1] if is_lstm else none, _held(static.cell, weights), state[0],
        state[1] if is_lstm else none, hs, cs, saved, lengths, none if scales is None else scales,
        outputs=[
            like(x_proj, (*hs.shape[:3], columns)),
            like(x_proj, hs.shape if is_gru else (1,)),
            like(x_proj, hs.shape[1:], jnp.float32),
            like(x_proj, hs.shape[1:] if is_lstm else (1,), jnp.float32),
            like(x_proj, (2, hs.shape[1], inputs, plan.grid[0], *hs.shape[2:]), jnp.float32),
            like(x_proj, (directions, plan.grid[1]), jnp.int32),
        ],
        zeroed_outputs=(5,),
        CHUNK=min(power_of_two(plan.grid[0]), max(1, PARTS_AT_ONCE // (plan.units * plan.batch))),
        **options,
    )  # fmt: skip
    dx = jnp.concatenate([dz[..., : 2 * hs.shape[-1]], dn], -1) if is_gru else dz
    d_weights = _weight_gradients(static, weights, state[0], hs, dz, dx, scales)
    return dx[:, :directions], d_weights, ((d_h0, d_c0) if is_lstm else (d_h0,)), None, None


def _weight_gradients(static, weights, h0, hs, dz, dx, scales) -> Chains:
    """From the gradients of the recurrent (dz) and the input product (dx) of every step, as large products over all steps."""
    backward = lambda chain: static.reverse or (chain == 1 and static.layers == 1)
    h_before = jnp.stack(
        [
            jnp.concatenate([hs[1:, chain], first[None]] if backward(chain) else [first[None], hs[:-1, chain]])
            for chain, first in enumerate(h0.astype(hs.dtype))
        ],
        1,
    )
    wide = lambda a: a.astype(jnp.float32)
    total = lambda d, like: wide(d).sum((0, 2)).astype(like.dtype)
    d_w_h = weight_gradient(wide(h_before), wide(dz), weights.w_h)
    d_b_h = None if weights.b_h is None else total(dz, weights.b_h)
    if weights.w_x is None:
        return Chains(d_w_h, d_b_h, None, None)
    below = hs[:, :-1] if scales is None else hs[:, :-1] * jnp.swapaxes(scales, 0, 1)
    d_w_x = weight_gradient(wide(below), wide(dx[:, 1:]), weights.w_x)
    return Chains(d_w_h, d_b_h, d_w_x, total(dx[:, 1:], weights.b_x))
