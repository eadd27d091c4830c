"""Arrays of more than 2**31 elements: the offsets of every kernel reach their ends, or the operator says why it does not.

The kernels run in the interpreter on arrays that are not there, the last program of each launch.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import pytest

import kernels
from kernels import CellWeights
from kernels.runtime import launch
from kernels.verification import interpret

S = jax.ShapeDtypeStruct
BF16, F32 = jnp.bfloat16, jnp.float32
HAND = {"implementation": "interpret"}


def with_gradients(fn, args, inexact):
    y, pullback = jax.vjp(lambda *a: fn(*a, *args[inexact:]), *args[:inexact])
    return y, pullback(y)


def batch_norm(x, scale, bias, mean, var, residual=None):
    return kernels.batch_norm_act_running(x, scale, bias, mean, var, residual, **HAND)[0]


def gru(x, *weights):
    return kernels.gru(x, [CellWeights(*weights), CellWeights(*weights)], dropout=0.5, dropout_key=jax.random.key(0), **HAND)


CHANNELS = S((512,), F32)
# Of each operator: itself, its arguments, how many of them are differentiated (0: forward only), and by kernel the arrays whose
# ends the last program reaches.
CASES = {
    "max_pool, one image": (
        lambda x: kernels.max_pool(x, 3, 2, "SAME", **HAND),
        [S((1, 70_001, 35_001, 1), BF16)],
        1,
        {"forward_kernel": ("y", "position"), "backward_kernel": ("dy", "dx")},
    ),
    "max_pool, many": (
        lambda x: kernels.max_pool(x, 2, 2, **HAND),
        [S((40_000, 224, 224, 2), BF16)],
        1,
        {"forward_kernel": ("x", "y"), "backward_kernel": ("dy", "dx")},
    ),
    "local_response_norm": (
        lambda x: kernels.local_response_norm(x, **HAND),
        [S((700_001, 3_333), BF16)],
        1,
        {"forward_kernel": ("x", "y"), "backward_kernel": ("x", "dy", "dx")},
    ),
    "local_response_norm, rows": (
        lambda x: kernels.local_response_norm(x, **HAND),
        [S((2**31 + 77, 1), BF16)],
        1,
        {"forward_kernel": ("x", "y"), "backward_kernel": ("x", "dy", "dx")},
    ),
    "softmax_cross_entropy": (
        lambda x, labels: kernels.softmax_cross_entropy(x, labels, 0.1, **HAND),
        [S((2_500_001, 1_001), BF16), S((2_500_001,), jnp.int32)],
        1,
        {"forward_kernel": ("logits", "loss", "normalizers"), "backward_kernel": ("logits", "normalizers", "dlogits")},
    ),
    "softmax_cross_entropy, rows": (
        lambda x, labels: kernels.softmax_cross_entropy(x, labels, 0.1, **HAND),
        [S((2**31 + 77, 2), BF16), S((2**31 + 77,), jnp.int32)],
        1,
        {"forward_kernel": ("logits", "loss"), "backward_kernel": ("logits", "dlogits")},
    ),
    "softmax_cross_entropy, classes": (
        lambda x, labels: kernels.softmax_cross_entropy(x, labels, **HAND),
        [S((70, 2**25), BF16), S((70,), jnp.int32)],
        1,
        {"forward_kernel": ("logits",), "backward_kernel": ("logits", "dlogits")},
    ),
    "batch_norm_act": (
        batch_norm,
        [S((8_200_173, 264), BF16), *[S((264,), F32)] * 4, S((8_200_173, 264), BF16)],
        6,
        {"forward_kernel": ("x", "y", "positive", "residual"), "backward_kernel": ("x", "dy", "dx", "dresidual")},
    ),
    "batch_norm_act, channels": (
        batch_norm,
        [S((2_100, 2**20), BF16), *[S((2**20,), F32)] * 4],
        5,
        {"forward_kernel": ("x", "y"), "backward_kernel": ("x", "dy", "dx")},
    ),
    "linear_act, rows": (
        lambda x, w, b: kernels.linear_act(x, w, b, "gelu", **HAND),
        [S((2**31 + 77, 3), BF16), S((3, 2), BF16), S((2,), F32)],
        3,
        {"forward_kernel": ("x", "w", "y", "before"), "backward_kernel": ("dy", "dz", "db")},
    ),
    "linear_act, square": (
        lambda x, w, b: kernels.linear_act(x, w, b, **HAND),
        [S((128, 50_001), BF16), S((50_001, 50_001), BF16), S((50_001,), F32)],
        3,
        {"forward_kernel": ("x", "w", "b", "y"), "backward_kernel": ("dy", "dz", "db")},
    ),
    "linear_act, outputs": (
        lambda x, w, b: kernels.linear_act(x, w, b, "tanh", **HAND),
        [S((1_100, 1_500), BF16), S((1_500, 2**21), BF16), S((2**21,), F32)],
        3,
        {"forward_kernel": ("w", "b", "y"), "backward_kernel": ("dy", "dz", "db")},
    ),
    "mlp, rows": (
        lambda x, w0, b0, w1, b1: kernels.mlp(x, [w0, w1], [b0, b1], **HAND),
        [S((2**31 + 77, 3), BF16), S((3, 5), BF16), S((5,), F32), S((5, 2), BF16), S((2,), F32)],
        0,
        {"forward_kernel": ("x", "w0", "w1", "y")},
    ),
    "mlp, weights": (
        lambda x, w0, b0, w1, b1: kernels.mlp(x, [w0, w1], [b0, b1], **HAND),
        [S((513, 2**22), BF16), S((2**22, 256), BF16), S((256,), F32), S((256, 2**22), BF16), S((2**22,), F32)],
        0,
        {"forward_kernel": ("x", "w0", "w1", "b1", "y")},
    ),
    "recurrent": (
        gru,
        [S((4, 2**23, 40), BF16), S((40, 120), BF16), S((40, 120), BF16)],
        3,
        {"forward_kernel": ("x_proj", "scales", "hs", "saved"), "backward_kernel": ("d_hs", "saved", "scales", "dz", "dn")},
    ),
    "lenet5": (
        lambda x, *a: kernels.lenet5(x, a[::2], a[1::2], **HAND),
        [
            S((1_100_001, 32, 32, 2), BF16),
            *(S(s, t) for shape in ((5, 5, 2, 6), (5, 5, 6, 16), (400, 120), (120, 84), (84, 10))
              for s, t in ((shape, BF16), (shape[-1:], F32))),
        ],
        0,
        {"forward_kernel": ("x", "y")},
    ),
}  # fmt: skip


def launches_of(name: str) -> list[launch.Launch]:
    fn, args, inexact, _ = CASES[name]
    with kernels.target("nvidia-h200"), launch.recording() as calls:
        if inexact:
            jax.eval_shape(lambda *a: with_gradients(fn, a, inexact), *args)
        else:
            jax.eval_shape(fn, *args)
    return calls


@pytest.mark.parametrize("name", CASES)
def test_offsets_reach_the_end(name):
    *_, ends = CASES[name]
    calls = launches_of(name)
    assert any(math.prod(shape) > 2**31 for call in calls for shape in call.shapes)
    assert {call.kernel.__name__ for call in calls} >= set(ends)
    for call in calls:
        arrays = list(zip(call.shapes, call.dtypes, strict=True))
        if call.kernel.__name__ not in ends:
            continue
        last = tuple(n - 1 for n in call.grid)
        programs = {last, (*last[:2], *(0,) * len(last[2:]))}  # of a recurrent kernel, in the last and in the first layer
        found = interpret.accesses(call.kernel, call.grid, arrays, dict(call.constants), list(programs))
        reached = {}
        for access in found:
            if access.mask.any():
                furthest = int(access.addresses[access.mask].max())
                reached[furthest >> 40] = max(reached.get(furthest >> 40, 0), furthest % 2**40 + access.size)
        for array in ends[call.kernel.__name__]:
            number = call.kernel.arg_names.index(array)
            shape, dtype = arrays[number]
            assert reached[number] == math.prod(shape) * jnp.dtype(dtype).itemsize, (call.kernel.__name__, array)


TOO_LARGE = {
    "row of the image": lambda: kernels.max_pool(S((1, 3, 2**20, 9), BF16), 2, **HAND),
    "classes": lambda: kernels.softmax_cross_entropy(S((2, 2**25 + 1), BF16), S((2,), jnp.int32), **HAND),
    "rows": lambda: kernels.batch_norm_act(S((2**30 + 1, 2), BF16), *[S((2,), F32)] * 2, **HAND),
    "channels": lambda: kernels.batch_norm_act(S((2, 2**20 + 1), BF16), *[S((2**20 + 1,), F32)] * 2, **HAND),
    "outputs": lambda: kernels.linear_act(S((2, 3), BF16), S((3, 2**21 + 1), BF16), **HAND),
    "dropped": lambda: kernels.linear_act(S((2**22, 3), BF16), S((3, 2**11), BF16), dropout_rate=0.5, dropout_seed=0, **HAND),
    "layer": lambda: kernels.mlp(
        S((2, 3), BF16), [S((3, 256), BF16), S((256, 2**23), BF16)], [S((256,), F32), S((2**23,), F32)], **HAND
    ),
    "steps": lambda: kernels.gru(S((1, 2**24, 4), BF16), [CellWeights(S((4, 12), BF16), S((4, 12), BF16))], **HAND),
}
REASONS = {
    "row of the image": "it takes rows of up to 8388608 elements, padded, and was given 1048576 columns of 9",
    "classes": "it takes up to 33554432 classes, and was given 33554433",
    "rows": "it takes up to 1073741824 rows of 1048576 channels, and was given 1073741825 of 2",
    "channels": "it takes up to 1073741824 rows of 1048576 channels, and was given 2 of 1048577",
    "outputs": "it takes up to 2097152 outputs, and was given 2097153",
    "dropped": "it numbers the elements that it may drop in 32 bits, and y has more",
    "layer": "it takes layers of up to 1073741824 weights, and was given 2147483648",
    "steps": "its barrier counts in 32 bits, and 16777216 steps are too many for it",
}


@pytest.mark.parametrize("what", TOO_LARGE)
def test_what_is_too_large_is_refused(what):
    with kernels.target("nvidia-h200"), pytest.raises(kernels.ImplementationError, match=REASONS[what]):
        jax.eval_shape(TOO_LARGE[what])
