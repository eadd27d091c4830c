"""The operators against ONNX' own node tests (onnx.backend.test), with a small adapter for each of ONNX' operators.

A case that the operators do not express stands below with the reason: every case of these operators is run or listed. The hand-
written kernels run too where triton is installed. `make test-onnx`, in an environment of its own (see the extra "onnx").
"""

from __future__ import annotations

import importlib.util
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from kernels import CellWeights

pytestmark = pytest.mark.onnx

THREE_D = "three spatial dimensions"
NOT_EXPRESSED = {
    "test_averagepool_3d_default": THREE_D,
    "test_averagepool_3d_dilations_small": THREE_D,
    "test_averagepool_3d_dilations_large_count_include_pad_is_0_ceil_mode_is_False": THREE_D,
    "test_averagepool_3d_dilations_large_count_include_pad_is_0_ceil_mode_is_True": THREE_D,
    "test_averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_False": THREE_D,
    "test_averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_True": THREE_D,
    "test_averagepool_2d_dilations": "avg_pool has no dilation, as torch's has none",
    "test_convtranspose_3d": THREE_D,
    "test_gemm_default_matrix_bias": "linear_act's bias is the same for all rows",
    "test_maxpool_3d_default": THREE_D,
    "test_maxpool_3d_dilations": THREE_D,
    "test_maxpool_3d_dilations_use_ref_impl": THREE_D,
    "test_maxpool_3d_dilations_use_ref_impl_large": THREE_D,
    "test_maxpool_2d_uint8": "max_pool takes floating point",
}
# Outputs that are not compared: their place among the node's.
NOT_GIVEN = {
    ("MaxPool", 1): "max_pool gives no indices",
    ("SoftmaxCrossEntropyLoss", 1): "softmax_cross_entropy gives no log-probabilities",
}
ROUNDED = {"test_averagepool_2d_ceil_last_window_starts_on_pad"}  # ONNX gives four decimals
# What the hand-written kernels say of cases that "xla" runs: by the beginning of a case's name.
KERNELS_REFUSE = {
    "test_gru_": "reset_after=False asks for it before",
    "test_lstm_with_peepholes": "it has no peepholes",
    "test_maxpool_2d_dilations": "it takes no dilation",
}


def spatial(x):
    """[batch, channels, height, width] or [batch, channels, width] to [batch, height, width, channels]."""
    x = x if x.ndim == 4 else x[:, :, None]
    return jnp.asarray(x.transpose(0, 2, 3, 1))


def back(y, like):
    y = np.asarray(y).transpose(0, 3, 1, 2)
    return y if like.ndim == 4 else y[:, :, 0]


def two(values, default=1):
    """An attribute of one or two dimensions, as two."""
    values = [default] if values is None else list(values)
    return (default, *values) if len(values) == 1 else tuple(values)


def window_options(attributes, x, window):
    """strides, dilation and ((top, bottom), (left, right)) of a convolution or pool."""
    one = [1] * (x.ndim - 2)
    strides, dilation = two(attributes.pop("strides", one)), two(attributes.pop("dilations", one))
    auto, pads = attributes.pop("auto_pad", b"NOTSET"), attributes.pop("pads", [0] * (2 * x.ndim - 4))
    half = len(pads) // 2
    padding = tuple(zip(two(pads[:half], 0), two(pads[half:], 0), strict=True))
    if auto in (b"SAME_UPPER", b"SAME_LOWER"):
        padding = ()
        for n, w, s, d in zip(spatial(x).shape[1:3], window, strides, dilation, strict=True):
            total = max((-(-n // s) - 1) * s + (w - 1) * d + 1 - n, 0)
            padding += ((total // 2, total - total // 2)[:: 1 if auto == b"SAME_UPPER" else -1],)
    return strides, dilation, padding


def max_pool(attributes, x, **how):
    window = two(attributes.pop("kernel_shape"))
    strides, dilation, padding = window_options(attributes, x, window)
    attributes.pop("storage_order", None)  # of the indices
    ceil_mode = bool(attributes.pop("ceil_mode", 0))
    return (back(kernels.max_pool(spatial(x), window, strides, padding, ceil_mode, dilation, **how), x),)


def avg_pool(attributes, x, **how):
    window = two(attributes.pop("kernel_shape"))
    strides, dilation, padding = window_options(attributes, x, window)
    assert dilation == (1, 1)
    options = {name: bool(attributes.pop(name, 0)) for name in ("ceil_mode", "count_include_pad")}
    return (back(kernels.avg_pool(spatial(x), window, strides, padding, **options, **how), x),)


def global_avg_pool(attributes, x, **how):
    return (back(kernels.avg_pool(spatial(x), x.shape[2:], **how), x),)


def conv(attributes, x, w, **how):
    window = two(attributes.pop("kernel_shape", w.shape[2:]))
    strides, dilation, padding = window_options(attributes, x, window)
    w = jnp.asarray(w.transpose(2, 3, 1, 0))
    return (back(kernels.conv(spatial(x), w, strides, padding, attributes.pop("group", 1), dilation, **how), x),)


def conv_transpose(attributes, x, w, **how):
    """Where the size of the result is given, the padding is what is left: more after than before only for SAME_UPPER."""
    window = two(attributes.pop("kernel_shape", w.shape[2:]))
    auto = attributes.get("auto_pad", b"NOTSET")
    strides, dilation, padding = window_options(attributes, x, window)
    more, sizes = list(two(attributes.pop("output_padding", [0, 0]), 0)), attributes.pop("output_shape", None)
    inputs = spatial(x).shape[1:3]
    if auto == b"SAME_UPPER":
        sizes = [n * s for n, s in zip(inputs, strides, strict=True)]
    if sizes is not None:
        padding = ()
        for axis, (size, n) in enumerate(zip(sizes, inputs, strict=True)):
            total = strides[axis] * (n - 1) + more[axis] + (window[axis] - 1) * dilation[axis] + 1 - size
            more[axis] += max(-total, 0)
            few, many = max(total, 0) // 2, -(-max(total, 0) // 2)
            padding += ((few, many) if auto == b"SAME_UPPER" else (many, few),)
    w = w if w.ndim == 4 else w[:, :, None]
    w = jnp.asarray(w.transpose(2, 3, 0, 1))
    return (
        back(kernels.conv_transpose(spatial(x), w, strides, padding, more, attributes.pop("group", 1), dilation, **how), x),
    )


def batch_norm(attributes, x, scale, bias, mean, var, **how):
    """The running variance is the mean square itself, where `batch_norm_act_running` has torch's unbiased one."""
    training, momentum = attributes.pop("training_mode", 0), attributes.pop("momentum", 0.9)
    given = {} if training else {"mean": mean, "var": var}
    y, new_mean, new_var = kernels.batch_norm_act(
        spatial(x),
        jnp.asarray(scale),
        jnp.asarray(bias),
        activation=None,
        epsilon=attributes.pop("epsilon", 1e-5),
        **given,
        **how,
    )
    moved = (old * momentum + new * (1 - momentum) for old, new in ((mean, new_mean), (var, new_var)))
    return (back(y, x), *moved) if training else (back(y, x),)


def local_response_norm(attributes, x, **how):
    """alpha is of the mean over the window, where the paper and the operator have the sum."""
    size, beta, k = attributes.pop("size"), attributes.pop("beta", 0.75), attributes.pop("bias", 1.0)
    alpha = attributes.pop("alpha", 1e-4) / size
    return (back(kernels.local_response_norm(spatial(x), size, alpha, beta, k, **how), x),)


def gemm(attributes, a, b, c=None, **how):
    a = a.T if attributes.pop("transA", 0) else a
    b = b.T if attributes.pop("transB", 0) else b
    alpha, beta = attributes.pop("alpha", 1.0), attributes.pop("beta", 1.0)
    if c is not None:
        c = jnp.asarray(np.broadcast_to(beta * c, (1, b.shape[1]))[0], jnp.float32)
    return (kernels.linear_act(jnp.asarray(alpha * a, jnp.float32), jnp.asarray(b), c, None, **how),)


def leaky_relu(attributes, x, **how):
    rows = jnp.asarray(x).reshape(-1, x.shape[-1])
    slope = attributes.pop("alpha", 0.01)
    y = kernels.linear_act(rows, jnp.eye(x.shape[-1]), None, "leaky_relu", negative_slope=slope, **how)
    return (y.reshape(x.shape),)


# Our gates among ONNX' (the RNN's one; z, r, h; i, o, f, c), and our peepholes among i, o, f.
GATES = {"rnn": (0,), "gru": (1, 0, 2), "lstm": (0, 2, 3, 1)}
PEEPHOLES = (0, 2, 1)


def recurrent(cell):
    def run(attributes, x, w, r, b=None, lengths=None, h=None, c=None, p=None, **how):
        hidden, layout = attributes.pop("hidden_size"), attributes.pop("layout", 0)
        direction = attributes.pop("direction", b"forward")
        if cell == "gru":
            how["reset_after"] = bool(attributes.pop("linear_before_reset", 0))

        def ordered(rows):
            """[gates * hidden, ...] in our order of gates, the gates last."""
            return jnp.asarray(np.concatenate([np.split(rows, len(GATES[cell]))[gate] for gate in GATES[cell]]).T)

        weights = []
        for way in range(len(w)):
            biases = (None, None) if b is None else map(ordered, np.split(b[way], 2))
            peepholes = None if p is None else jnp.asarray(p[way].reshape(3, hidden)[list(PEEPHOLES)])
            weights.append(CellWeights(ordered(w[way]), ordered(r[way]), *biases, peepholes=peepholes))
        x = jnp.asarray(x if layout else x.swapaxes(0, 1))
        assert layout == 0 or h is None
        state = None if h is None else (jnp.asarray(h), jnp.asarray(c)) if cell == "lstm" else jnp.asarray(h)
        ys, final = getattr(kernels, cell)(x, [weights], state, seq_lengths=lengths, reverse=direction == b"reverse", **how)
        ys = np.asarray(ys).reshape(*x.shape[:2], len(w), hidden)
        finals = [np.asarray(part) for part in (final if cell == "lstm" else (final,))]
        if layout:
            return (ys, *(part.swapaxes(0, 1) for part in finals))
        return (ys.transpose(1, 2, 0, 3), *finals)

    return run


def softmax_cross_entropy(attributes, x, labels, weight=None, **how):
    """The classes are on the second axis; here on the last."""
    logits = jnp.moveaxis(jnp.asarray(x), 1, -1)
    options = {"ignore_index": attributes.pop("ignore_index", None), "reduction": attributes.pop("reduction", b"mean").decode()}
    weight = None if weight is None else jnp.asarray(weight)
    return (kernels.softmax_cross_entropy(logits, jnp.asarray(labels, jnp.int32), weight=weight, **options, **how),)


ADAPTERS = {
    "AveragePool": ("avg_pool", avg_pool),
    "BatchNormalization": ("batch_norm_act", batch_norm),
    "Conv": ("conv", conv),
    "ConvTranspose": ("conv_transpose", conv_transpose),
    "GRU": ("gru", recurrent("gru")),
    "Gemm": ("linear_act", gemm),
    "GlobalAveragePool": ("avg_pool", global_avg_pool),
    "LRN": ("local_response_norm", local_response_norm),
    "LSTM": ("lstm", recurrent("lstm")),
    "LeakyRelu": ("linear_act", leaky_relu),
    "MaxPool": ("max_pool", max_pool),
    "RNN": ("rnn", recurrent("rnn")),
    "SoftmaxCrossEntropyLoss": ("softmax_cross_entropy", softmax_cross_entropy),
}


def node_cases():
    """ONNX' cases of one node that is among the operators above, by name; none where onnx is not installed."""
    if importlib.util.find_spec("onnx") is None:
        return {}
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it computes the cases of all operators, some of them beyond what a dtype holds
        every = load_model_tests(kind="node")
    return {case.name: case for case in every if len(case.model.graph.node) == 1 and op_type(case) in ADAPTERS}


def op_type(case):
    return case.model.graph.node[0].op_type


CASES = node_cases()
HAND = importlib.util.find_spec("triton") is not None
RUNS = [
    (name, implementation)
    for name, case in CASES.items()
    if name not in NOT_EXPRESSED
    for implementation in ("xla", "interpret")
    if implementation == "xla" or (HAND and implementation in kernels.available(ADAPTERS[op_type(case)][0]))
]


@pytest.mark.parametrize(("name", "implementation"), RUNS)
def test_node(name: str, implementation: str) -> None:
    import onnx

    (node,) = CASES[name].model.graph.node
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    for inputs, outputs in CASES[name].data_sets:
        given = iter(inputs)
        arguments = [next(given) if place else None for place in node.input]
        remaining = dict(attributes)
        run = lambda remaining=remaining, arguments=arguments: ADAPTERS[node.op_type][1](
            remaining, *arguments, implementation=implementation
        )
        refused = [reason for start, reason in KERNELS_REFUSE.items() if name.startswith(start)]
        if implementation != "xla" and refused:
            with pytest.raises(kernels.ImplementationError, match=refused[0]):
                run()
            continue
        found = run()
        assert not remaining, "attributes that no one looked at"
        expected = iter(outputs)
        for place, output in enumerate(node.output):
            if not output:
                continue
            value = next(expected)
            if (node.op_type, place) not in NOT_GIVEN:
                assert found[place].shape == value.shape
                # float32 sums in another order; ONNX' own tolerance is 1e-3.
                np.testing.assert_allclose(found[place], value, rtol=2e-5, atol=6e-5 if name in ROUNDED else 2e-6)


def test_every_case_is_run_or_listed() -> None:
    assert {op_type(case) for case in CASES.values()} == set(ADAPTERS)
    run = {name for name, _ in RUNS}
    assert run.isdisjoint(NOT_EXPRESSED)
    assert run | set(NOT_EXPRESSED) == set(CASES)
    assert all(any(name.startswith(start) for name in run) for start in KERNELS_REFUSE)
