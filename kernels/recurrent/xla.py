"""Plain JAX: one scan per layer, both directions of a layer side by side in it.

What makes it fast on any device: the input product of all steps is one matrix product before the loop, the weight gradient of
all steps is one after it, both directions share one batched product per step, and the activations of the gates are residuals,
so that the backward pass does not recompute them. The program does not grow with the length of the sequence.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp

from kernels.recurrent.cells import CELLS, Cell, CellWeights, Params, held, input_product
from kernels.runtime import dispatch
from kernels.runtime.derivatives import differentiable
from kernels.runtime.tuning import tuned_config

# Known to jax.jit, as the choices in kernels.runtime.dispatch are.
_unroll = jax.make_user_context(None)


@contextlib.contextmanager
def unrolled(steps: int) -> Iterator[None]:
    """Loops traced inside do `steps` steps (at least 1) in each turn, forward and backward: on a GPU XLA fuses across them.

    The default is what was measured to be the fastest, else one, which is best on a CPU.
    """
    if steps < 1:
        raise ValueError(f"steps: {steps} given, at least 1 is needed")
    with _unroll(steps):
        yield


def stack(
    cell_name: str,
    x: jax.Array,
    layers: Sequence[tuple[CellWeights, ...]],
    initial_state: tuple[jax.Array, ...],
    seq_lengths: jax.Array | None,
    reverse: bool,
    dropout_scales: Sequence[jax.Array | None],
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Outputs [batch, time, directions * out] and final state of a stack of layers; arguments as `api` has checked them.

    initial_state: each [layers, directions, batch, units]. dropout_scales: what multiplies each layer's input, or None.
    """
    cell = CELLS[cell_name]
    x = jnp.swapaxes(x, 0, 1)
    real = None
    if seq_lengths is not None:
        real = (jnp.arange(x.shape[0])[:, None] < seq_lengths)[:, None, :, None]
    finals = []
    for weights, scale, *state in zip(layers, dropout_scales, *initial_state, strict=True):
        if scale is not None:
            x = x * scale.astype(x.dtype)
        x, final = _layer(cell, x, weights, tuple(state), real, reverse)
        finals.append(final)
    return jnp.swapaxes(x, 0, 1), tuple(jnp.stack(parts) for parts in zip(*finals, strict=True))


def _layer(
    cell: Cell,
    x: jax.Array,
    weights: tuple[CellWeights, ...],
    state: tuple[jax.Array, ...],
    real: jax.Array | None,
    reverse: bool,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """One layer of [time, batch, features] to [time, batch, directions * out], and its final state [directions, batch, units].

    A direction that reads from the end is a direction that reads flipped time. Padding then comes first and leaves the
    initial state as it is, so that the direction starts at the last real step.
    """
    backward = (reverse,) if len(weights) == 1 else (False, True)
    flip = [functools.partial(jnp.flip, axis=0) if b else lambda a: a for b in backward]
    x_proj = jnp.stack([input_product(f(x), w.w_x) for f, w in zip(flip, weights, strict=True)], 1)
    if real is not None:
        real = jnp.concatenate([f(real) for f in flip], 1)
    params = Params(**{name: _stack([getattr(w, name) for w in weights]) for name in Params._fields})  # type: ignore[arg-type]
    hs, final = recurrence(cell, x_proj, params, state, real)
    if real is not None:
        hs = jnp.where(real, hs, 0)
    outputs = [f(hs[:, d]) for d, f in enumerate(flip)]
    return jnp.concatenate(outputs, -1).astype(x.dtype), final


def _stack(arrays: list[jax.Array | None]) -> jax.Array | None:
    given = [a for a in arrays if a is not None]
    return jnp.stack([a if a.ndim == 2 else a[None] for a in given]) if given else None


def recurrence(
    cell: Cell, x_proj: jax.Array, params: Params, state: tuple[jax.Array, ...], real: jax.Array | None
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Run a layer: x_proj [time, directions, batch, gates * hidden], real [time, directions or 1, batch, 1] or None.

    Returns the output part of the state after each step, and the whole state after the last.
    """

    def plain(x_proj, params, state, real):
        (hs, *_), final, _ = _forward(cell, x_proj, params, state, real)
        return hs, final

    forward, backward = functools.partial(_recurrence_forward, cell), functools.partial(_recurrence_backward, cell)
    return differentiable(plain, forward, backward)(x_proj, params, state, real)


def _forward(cell, x_proj, params, state, real):
    """States after each step, final state, and what the steps saved (in x_proj's dtype)."""
    dtype = state[0].dtype
    params = _held(params, state[0].shape[1], transposed=False)

    def step(state, inputs):
        x, real_now = inputs
        new, saved = cell.step(params, state, x.astype(dtype))
        if real_now is not None:
            new = tuple(jnp.where(real_now, n, s) for n, s in zip(new, state, strict=True))
        return new, (new, jax.tree.map(lambda a: a.astype(x_proj.dtype), saved))

    final, (states, saved) = _scan(step, state, (x_proj, real), unroll=_steps_in_a_turn(x_proj.shape[0], state[0]))
    return states, final, saved


def _scan(step, state, inputs, **options):
    """jax.lax.scan over arrays [time, directions, ...]; on a CPU a single direction is scanned without its axis.

    With an axis of one element XLA:CPU finds two layouts where there is one, and copies whole sequences between them.
    """
    if state[0].shape[0] > 1 or dispatch.device().platform != "cpu":
        return jax.lax.scan(step, state, inputs, **options)

    def step_of_one(state, inputs):
        state, outputs = step(state, jax.tree.map(lambda a: a[None], inputs))
        return state, jax.tree.map(lambda a: a[0], outputs)

    state, outputs = jax.lax.scan(step_of_one, state, jax.tree.map(lambda a: a[:, 0], inputs), **options)
    return state, jax.tree.map(lambda a: a[:, None], outputs)


def _steps_in_a_turn(time: int, state: jax.Array) -> int:
    if _unroll.value is not None:
        return _unroll.value
    measured = tuned_config("recurrent.xla", "x".join(map(str, (time, *state.shape))))
    return 1 if measured is None else measured["unroll"]


def _held(params: Params, batch: int, transposed: bool) -> Params:
    """The matrices, or their transposes, as the loop reads them: once here, not in each step's product."""
    turned = lambda w: jnp.swapaxes(w, 1, 2) if transposed else w
    w_p = None if params.w_p is None else held(turned(params.w_p), batch)
    return params._replace(w_h=held(turned(params.w_h), batch), w_p=w_p)


def _recurrence_forward(cell, x_proj, params, state, real):
    states, final, saved = _forward(cell, x_proj, params, state, real)
    return (states[0], final), (params, state, real, states, saved)


def _recurrence_backward(cell, residuals, cotangents):
    params, state, real, states, saved = residuals
    d_hs, d_final = cotangents
    dtype = state[0].dtype
    transposed = _held(params, state[0].shape[1], transposed=True)
    previous = tuple(jnp.concatenate([first[None], rest[:-1]]) for first, rest in zip(state, states, strict=True))

    def step_back(d_state, inputs):
        d_h, previous_now, states_now, saved_now, real_now = inputs
        d_state = (d_state[0] + d_h, *d_state[1:])
        saved_now = jax.tree.map(lambda a: a.astype(dtype), saved_now)
        d_previous, d_step = cell.step_back(transposed, previous_now, states_now, saved_now, d_state)
        if real_now is not None:
            d_previous = tuple(jnp.where(real_now, p, d) for p, d in zip(d_previous, d_state, strict=True))
            d_step = jax.tree.map(lambda a: jnp.where(real_now, a, 0), d_step)
        return d_previous, d_step

    inputs = (d_hs, previous, states, saved, real)
    d_state, d_steps = _scan(step_back, d_final, inputs, reverse=True, unroll=_steps_in_a_turn(d_hs.shape[0], d_final[0]))
    d_x, d_params = cell.gradients(params, previous, states, saved, d_steps)
    return d_x.astype(params.w_h.dtype), d_params, d_state, None
