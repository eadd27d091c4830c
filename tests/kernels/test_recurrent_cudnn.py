"""implementation="cudnn": everything but cuDNN, in whose place stands the plain JAX that jax.experimental.rnn has for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import rnn

import kernels
from kernels import CellWeights
from kernels.recurrent import cudnn
from kernels.verification import aot
from tests.kernels.recurrent_operands import assert_close, operands, results


def plain(x, h, c, weights, lengths, **sizes):
    sizes = (sizes["input_size"], sizes["hidden_size"], sizes["num_layers"], sizes["dropout"], sizes["bidirectional"])
    matrices = rnn.unpack_lstm_weights(weights, *sizes[:3], sizes[4])
    return rnn.lstm_ref(x, h, c, *matrices, lengths, *sizes)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ({"layers": 2, "directions": 2}, {"seq_lengths": [4, 1, 3]}),
        ({"layers": 2}, {"seq_lengths": [2, 4, 3], "dropout": 0.5, "dropout_key": jax.random.key(0)}),
    ],
)
def test_equals_plain_jax(monkeypatch, shape, options):
    monkeypatch.setattr(rnn, "lstm", plain)
    given = operands("lstm", 3, 4, 5, 7, **shape)
    with kernels.target("nvidia-h200"):
        found = results("lstm", "cudnn", *given, **options)
    # float32 sums in another order, over a few steps.
    assert_close(found, results("lstm", "xla", *given, **options), 1e-5)


def test_weights_unpack_to_what_was_packed():
    stack, _, _ = operands("lstm", 1, 1, 5, 7, layers=2, directions=2)
    unpacked = rnn.unpack_lstm_weights(cudnn.packed(stack), 5, 7, 2, True)
    for i, w in enumerate(w for layer in stack for w in layer):
        for found, expected in zip(unpacked, (w.w_x.T, w.w_h.T, w.b_x, w.b_h), strict=True):
            np.testing.assert_array_equal(found[i], expected)


def test_missing_biases_are_zero():
    bare = [[CellWeights(jnp.ones((5, 28)), jnp.ones((7, 28)))]]
    np.testing.assert_array_equal(cudnn.packed(bare), [1.0] * (12 * 28) + [0.0] * 56)


def test_lowered_for_the_h200(monkeypatch):
    """Two calls into cuDNN, forward and backward. How much workspace they need is asked of cuDNN itself, which is not here."""
    sizes = "compute_rnn_workspace_reserve_space_sizes"
    monkeypatch.setattr(rnn.gpu_rnn, sizes, lambda *_: (1024, 2048))
    stack, x, _ = operands("lstm", 3, 4, 5, 7, layers=2)

    def loss(stack, x):
        return kernels.lstm(x, stack, implementation="cudnn")[0].sum()

    with aot.lowering_for("nvidia-h200"):
        text = jax.jit(jax.grad(loss)).trace(stack, x).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("@cudnn_rnn_ffi") == text.count("@cudnn_rnn_bwd_ffi") == 1


def test_what_cudnn_does_not_take():
    stack, x, _ = operands("lstm", 2, 3, 5, 20)
    projected = [CellWeights(jnp.zeros((5, 80)), jnp.zeros((4, 80)), w_p=jnp.zeros((20, 4)))]
    half = jax.tree.map(lambda a: a.astype(jnp.float16), (x, stack))
    with pytest.raises(kernels.ImplementationError, match="needs an NVIDIA GPU"):
        kernels.lstm(x, stack, implementation="cudnn")
    with kernels.target("nvidia-h200"):
        for message, arguments, options in (
            ("takes float32, and was given float16", half, {}),
            ("no projection", (x, projected), {}),
            ("only beside a forward direction", (x, stack), {"reverse": True}),
        ):
            with pytest.raises(kernels.ImplementationError, match=message):
                kernels.lstm(*arguments, implementation="cudnn", **options)
    with pytest.raises(kernels.ImplementationError, match="gru has no 'cudnn'"):
        kernels.gru(x, operands("gru", 2, 3, 5, 20)[0], implementation="cudnn")
