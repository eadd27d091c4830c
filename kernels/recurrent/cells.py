"""What one time step of each cell computes, and its derivative, for all directions of a layer at once.

The arrays that the loop carries are [directions, batch, units]; those that it leaves behind have time in front. Each cell
gives `xla.recurrence` three functions, so that the loop, the padding and the directions are written once:

- step: one step forward; also what the backward pass needs of it,
- step_back: one step backward, down to the gradient of what was added to the gates; its w_h and w_p come transposed,
- gradients: of the input product and of the parameters, by one large product over all steps, outside the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kernels.runtime import dispatch
from kernels.runtime.derivatives import differentiable


class CellWeights(NamedTuple):
    """Weights of one layer in one direction. The gates stand side by side along the last axis, in torch's order.

    One gate for an RNN; input, forget, cell, output for an LSTM; reset, update, new for a GRU.

    Attributes:
      w_x: [in_features, gates * hidden], multiplies the input.
      w_h: [out_features, gates * hidden], multiplies the previous output; out_features is hidden, or that of `w_p`.
      b_x, b_h: [gates * hidden] or None. They differ only in the GRU, whose reset gate multiplies the new gate's `b_h`.
      w_p: [hidden, out_features] or None: the projection of an LSTM's output (Sak et al. 2014).
      peepholes: [3, hidden] or None: what an LSTM's cell state is multiplied with, unit by unit, and added to the input, the
        forget and the output gate (Gers, Schmidhuber 2000). The first two see the state before this step, the last the one
        after it.
    """

    w_x: jax.Array
    w_h: jax.Array
    b_x: jax.Array | None = None
    b_h: jax.Array | None = None
    w_p: jax.Array | None = None
    peepholes: jax.Array | None = None


class Params(NamedTuple):
    """What the loop uses of the weights: w_h [d, out, gates * hidden], w_p [d, hidden, out], biases [d, 1, gates * hidden],
    peepholes [d, 3, hidden].

    Within the loop w_h and w_p are as `held` has them.
    """

    w_h: Any
    b_x: jax.Array | None
    b_h: jax.Array | None
    w_p: Any
    peepholes: jax.Array | None = None


class Cell(NamedTuple):
    """A cell: see the head of this file. The state is a tuple, the output first; `x` is this step's input product."""

    gates: int
    state_size: int
    step: Callable[[Params, tuple, jax.Array], tuple[tuple, Any]]
    step_back: Callable[[Params, tuple, tuple, Any, tuple], tuple[tuple, Any]]
    gradients: Callable[[Params, tuple, tuple, Any, Any], tuple[jax.Array, Params]]


class Transposed(NamedTuple):
    """A matrix [d, n, m] of the loop, held as [d, m, n]: see `held`."""

    matrix: jax.Array

    @property
    def dtype(self) -> Any:
        return self.matrix.dtype


def held(w: jax.Array, batch: int) -> jax.Array | Transposed:
    """A matrix [d, n, m] as the products of the loop read it fastest.

    A CPU's product rearranges its operands for the cache in every step, and takes less time over a large matrix on the left;
    a few examples or very many leave nothing to gain.
    """
    transposed = dispatch.device().platform == "cpu" and w.shape[1] * w.shape[2] >= 2**18 and 8 <= batch <= 64
    return Transposed(jnp.swapaxes(w, 1, 2)) if transposed else w


def matmul(a: jax.Array, w: jax.Array | Transposed) -> jax.Array:
    """[d, batch, n] x [d, n, m] in w's dtype, accumulated and returned in the state's."""
    if isinstance(w, Transposed):
        # Barriers, because XLA would make the product of before of it.
        columns = jax.lax.optimization_barrier(jnp.swapaxes(a.astype(w.dtype), 1, 2))
        product = jnp.einsum("dmn,dnb->dmb", w.matrix, columns, preferred_element_type=a.dtype)
        return jnp.swapaxes(jax.lax.optimization_barrier(product), 1, 2)
    return jnp.einsum("dbn,dnm->dbm", a.astype(w.dtype), w, preferred_element_type=a.dtype)


def columns(w: jax.Array | Transposed, start: int | None, stop: int | None) -> jax.Array | Transposed:
    """Of a matrix [d, n, m] of the loop, those columns: [d, n, stop - start]."""
    return Transposed(w.matrix[:, start:stop]) if isinstance(w, Transposed) else w[..., start:stop]


def rows(w: jax.Array | Transposed, start: int | None, stop: int | None) -> jax.Array | Transposed:
    """Of a matrix [d, n, m] of the loop, those rows: [d, stop - start, m]."""
    return Transposed(w.matrix[..., start:stop]) if isinstance(w, Transposed) else w[:, start:stop]


def over_steps(a: jax.Array, dz: jax.Array, accumulate: Any) -> jax.Array:
    """The sum over all steps of a[t] transposed times dz[t]: [time, batch, n] and [time, batch, m] to [n, m].

    As the derivative of a product it would be the transpose of dz times a, which takes a CPU twice as long; and there it pays
    to write the transpose of a down first.
    """
    if dispatch.device().platform == "cpu":
        rows = jax.lax.optimization_barrier(jnp.moveaxis(a, -1, 0).reshape(a.shape[-1], -1))
        return jnp.matmul(rows, dz.reshape(-1, dz.shape[-1]), preferred_element_type=accumulate)
    return jnp.einsum("tbn,tbm->nm", a, dz, preferred_element_type=accumulate)


def input_product(x: jax.Array, w: jax.Array) -> jax.Array:
    """[time, batch, n] x [n, m] for all steps at once; its gradient of w is `over_steps`."""
    return differentiable(jnp.matmul, lambda x, w: (x @ w, (x, w)), _input_product_backward)(x, w)


def _input_product_backward(residuals, dy):
    x, w = residuals
    dx = jnp.einsum("tbm,nm->tbn", dy, w)
    return dx, over_steps(x, dy, jnp.promote_types(w.dtype, jnp.float32)).astype(w.dtype)


def weight_gradient(a: jax.Array, dz: jax.Array, w: jax.Array) -> jax.Array:
    """The sum over all steps of a[t] transposed times dz[t]: [time, d, batch, n] and [time, d, batch, m] to [d, n, m]."""
    # One product for each direction: a batch of products costs a CPU a copy of both operands.
    a, dz, accumulate = a.astype(w.dtype), dz.astype(w.dtype), dz.dtype
    products = [over_steps(a[:, d], dz[:, d], accumulate) for d in range(a.shape[1])]
    return jnp.stack(products).astype(w.dtype)


def bias_gradient(dz: jax.Array, bias: jax.Array | None) -> jax.Array | None:
    return None if bias is None else dz.sum((0, 2))[:, None].astype(bias.dtype)


def add(x: jax.Array, bias: jax.Array | None) -> jax.Array:
    return x if bias is None else x + bias


# Elman's network: h' = f(x + h w_h + b).


def _rnn(activation: str) -> Cell:
    def step(params, state, x):
        z = add(add(x + matmul(state[0], params.w_h), params.b_x), params.b_h)
        return (jnp.tanh(z) if activation == "tanh" else jax.nn.relu(z),), ()

    def step_back(params, previous, state, saved, d_state):
        (h,), (dh,) = state, d_state
        dz = dh * (1 - h * h) if activation == "tanh" else jnp.where(h > 0, dh, 0)
        return (matmul(dz, params.w_h),), dz

    def gradients(params, previous, states, saved, dz):
        d_w_h = weight_gradient(previous[0], dz, params.w_h)
        return dz, Params(d_w_h, bias_gradient(dz, params.b_x), bias_gradient(dz, params.b_h), None)

    return Cell(1, 1, step, step_back, gradients)


# Long short-term memory: c' = f c + i g, h' = o tanh(c') [w_p]; i and f may peep at c, o at c'.


def _peep(params: Params, gate: int, c: jax.Array) -> jax.Array | float:
    """What peepholes add to gate 0 (input), 1 (forget) or 2 (output), or to the gradient of c, of [..., d, batch, hidden]."""
    return 0.0 if params.peepholes is None else c * params.peepholes[:, gate : gate + 1]


def _lstm_gates(z: jax.Array) -> jax.Array:
    """Sigmoid of i, f and o, tanh of g, as one tanh over the whole row: one vectorized pass where a CPU would make four.

    A sigmoid is then exact to a rounding of one, 6e-8, not of its value: a gate as good as closed may be closed.
    """
    hidden = z.shape[-1] // 4
    half = jnp.full(hidden, 0.5, z.dtype)
    scale = jnp.concatenate([half, half, 2 * half, half])
    return jnp.tanh(z * scale) * scale + (1 - scale)


def _lstm_step(params, state, x):
    h, c = state
    z = add(add(x + matmul(h, params.w_h), params.b_x), params.b_h)
    if params.peepholes is None:
        acts = _lstm_gates(z)
        i, f, g, o = jnp.split(acts, 4, -1)
        c = f * c + i * g
    else:
        i, f, g, o = jnp.split(z, 4, -1)
        i, f, g = jax.nn.sigmoid(i + _peep(params, 0, c)), jax.nn.sigmoid(f + _peep(params, 1, c)), jnp.tanh(g)
        c = f * c + i * g
        o = jax.nn.sigmoid(o + _peep(params, 2, c))
        acts = jnp.concatenate([i, f, g, o], -1)
    h = o * jnp.tanh(c)
    return (h if params.w_p is None else matmul(h, params.w_p), c), acts


def _lstm_step_back(params, previous, state, acts, d_state):
    (_, c_previous), (_, c), (dh, dc) = previous, state, d_state
    i, f, g, o = jnp.split(acts, 4, -1)
    tanh_c = jnp.tanh(c)
    dm = dh if params.w_p is None else matmul(dh, params.w_p)
    d_o = dm * tanh_c * o * (1 - o)
    dc = dc + dm * o * (1 - tanh_c * tanh_c) + _peep(params, 2, d_o)
    d_i, d_f = dc * g * i * (1 - i), dc * c_previous * f * (1 - f)
    dz = jnp.concatenate([d_i, d_f, dc * i * (1 - g * g), d_o], -1)
    dc_previous = dc * f + _peep(params, 0, d_i) + _peep(params, 1, d_f)
    return (matmul(dz, params.w_h), dc_previous), (dz, None if params.w_p is None else dh)


def _lstm_gradients(params, previous, states, acts, d_steps):
    dz, dh = d_steps
    d_w_p, d_peepholes = None, None
    if params.w_p is not None:
        o = jnp.split(acts, 4, -1)[3].astype(dz.dtype)
        d_w_p = weight_gradient(o * jnp.tanh(states[1]), dh, params.w_p)
    if params.peepholes is not None:
        d_i, d_f, _, d_o = jnp.split(dz, 4, -1)
        seen = ((d_i, previous[1]), (d_f, previous[1]), (d_o, states[1]))
        d_peepholes = jnp.stack([(d * c).sum((0, 2)) for d, c in seen], 1).astype(params.peepholes.dtype)
    d_w_h = weight_gradient(previous[0], dz, params.w_h)
    return dz, Params(d_w_h, bias_gradient(dz, params.b_x), bias_gradient(dz, params.b_h), d_w_p, d_peepholes)


# Gated recurrent unit, with the reset gate behind the recurrent product as in torch and cuDNN:
# n = tanh(x_n + b_xn + r (h w_hn + b_hn)), h' = (1 - z) n + z h.


def _gru_step(params, state, x):
    (h,) = state
    x, y = add(x, params.b_x), add(matmul(h, params.w_h), params.b_h)
    two = 2 * h.shape[-1]
    r, z = jnp.split(jax.nn.sigmoid(x[..., :two] + y[..., :two]), 2, -1)
    y_n = y[..., two:]
    n = jnp.tanh(x[..., two:] + r * y_n)
    return (n + z * (h - n),), jnp.concatenate([r, z, n, y_n], -1)


def _gru_step_back(params, previous, state, saved, d_state):
    (h,), (dh,) = previous, d_state
    r, z, n, y_n = jnp.split(saved, 4, -1)
    dn = dh * (1 - z) * (1 - n * n)
    d_rz = jnp.concatenate([dn * y_n * r * (1 - r), dh * (h - n) * z * (1 - z)], -1)
    dy = jnp.concatenate([d_rz, dn * r], -1)
    return (matmul(dy, params.w_h) + dh * z,), (dy, dn)


def _gru_gradients(params, previous, states, saved, d_steps):
    dy, dn = d_steps
    dx = jnp.concatenate([dy[..., : 2 * dn.shape[-1]], dn], -1)
    d_w_h = weight_gradient(previous[0], dy, params.w_h)
    return dx, Params(d_w_h, bias_gradient(dx, params.b_x), bias_gradient(dy, params.b_h), None)


# The same with the reset gate before the recurrent product, as Cho et al. wrote it:
# n = tanh(x_n + b_xn + (r h) w_hn + b_hn).


def _gru_reset_before_step(params, state, x):
    (h,) = state
    x, two = add(add(x, params.b_x), params.b_h), 2 * h.shape[-1]
    r, z = jnp.split(jax.nn.sigmoid(x[..., :two] + matmul(h, columns(params.w_h, None, two))), 2, -1)
    n = jnp.tanh(x[..., two:] + matmul(r * h, columns(params.w_h, two, None)))
    return (n + z * (h - n),), jnp.concatenate([r, z, n], -1)


def _gru_reset_before_step_back(params, previous, state, saved, d_state):
    (h,), (dh,) = previous, d_state
    r, z, n = jnp.split(saved, 3, -1)
    two = 2 * h.shape[-1]
    dn = dh * (1 - z) * (1 - n * n)
    d_reset = matmul(dn, rows(params.w_h, two, None))  # of r h
    d_rz = jnp.concatenate([d_reset * h * r * (1 - r), dh * (h - n) * z * (1 - z)], -1)
    return (matmul(d_rz, rows(params.w_h, None, two)) + d_reset * r + dh * z,), jnp.concatenate([d_rz, dn], -1)


def _gru_reset_before_gradients(params, previous, states, saved, d_steps):
    (h,), two = previous, 2 * states[0].shape[-1]
    r = saved[..., : two // 2].astype(h.dtype)
    products = [(h, d_steps[..., :two], params.w_h[..., :two]), (r * h, d_steps[..., two:], params.w_h[..., two:])]
    d_w_h = jnp.concatenate([weight_gradient(*product) for product in products], -1)
    return d_steps, Params(d_w_h, bias_gradient(d_steps, params.b_x), bias_gradient(d_steps, params.b_h), None)


CELLS = {
    "rnn_tanh": _rnn("tanh"),
    "rnn_relu": _rnn("relu"),
    "lstm": Cell(4, 2, _lstm_step, _lstm_step_back, _lstm_gradients),
    "gru": Cell(3, 1, _gru_step, _gru_step_back, _gru_gradients),
    "gru_reset_before": Cell(3, 1, _gru_reset_before_step, _gru_reset_before_step_back, _gru_reset_before_gradients),
}
