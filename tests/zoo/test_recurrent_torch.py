"""zoo.Recurrent against torch.nn.RNN, LSTM and GRU: outputs, final states and all gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from zoo.functional import evaluation_view
from zoo.layers.recurrent import Recurrent
from zoo.weights import load_weights, to_torch_state_dict, torch_arrays

TORCH = {"rnn_tanh": torch.nn.RNN, "rnn_relu": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
BATCH, TIME, FEATURES, HIDDEN = 3, 5, 4, 6
# The same sums in another order: float64 to the last few digits, float32 to a few units in the last place times the steps.
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}


def torch_twin(layer, dtype):
    """torch's module with the weights of `layer`."""
    options = {"nonlinearity": layer.cell.removeprefix("rnn_")} if layer.cell.startswith("rnn") else {}
    if layer.proj_size:
        options["proj_size"] = layer.proj_size
    twin = TORCH[layer.cell](
        layer.input_size,
        layer.hidden_size,
        layer.num_layers,
        batch_first=True,
        bidirectional=layer.bidirectional,
        bias=hasattr(layer, "b_x_l0"),
        dtype=getattr(torch, dtype),
        **options,
    )
    twin.load_state_dict(to_torch_state_dict(layer))
    return twin


def run_torch(twin, x, state, lengths, d_outputs, d_final):
    """Outputs, final state, and the gradients of x, the initial state and the weights, as NumPy arrays."""
    x = torch.tensor(x, requires_grad=True)
    state = tuple(torch.tensor(s, requires_grad=True) for s in state)
    inputs = x
    if lengths is not None:
        inputs = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    outputs, final = twin(inputs, state if len(state) == 2 else state[0])
    if lengths is not None:
        outputs, _ = torch.nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True, total_length=x.shape[1])
    final = final if isinstance(final, tuple) else (final,)
    total = (outputs * torch.tensor(d_outputs)).sum() + sum(
        (f * torch.tensor(d)).sum() for f, d in zip(final, d_final, strict=True)
    )
    total.backward()
    weights = {name: p.grad.numpy() for name, p in twin.named_parameters()}
    arrays = lambda tensors: [t.detach().numpy() for t in tensors]
    return arrays([outputs, *final]), arrays([x.grad, *(s.grad for s in state)]), weights


def run_ours(layer, x, state, lengths, d_outputs, d_final):
    graph, params, rest = nnx.split(layer, nnx.Param, ...)

    @jax.jit
    def run(params, x, state, d_outputs, d_final):
        def total(params, x, state):
            outputs, final = nnx.merge(graph, params, rest)(x, state if len(state) == 2 else state[0], lengths)
            final = final if isinstance(final, tuple) else (final,)
            value = (outputs * d_outputs).sum() + sum((f * d).sum() for f, d in zip(final, d_final, strict=True))
            return value, [outputs, *final]

        return jax.grad(total, argnums=(0, 1, 2), has_aux=True)(params, x, state)

    (d_params, d_x, d_state), values = run(params, x, state, d_outputs, d_final)
    return values, [d_x, *d_state], torch_arrays(nnx.merge(graph, d_params, rest))


def compare(cell, dtype, layers=1, bidirectional=False, lengths=None, proj_size=0, bias=True):
    with jax.enable_x64(dtype == "float64"):
        rng = np.random.default_rng(layers + 10 * bidirectional)
        draw = lambda *shape: rng.standard_normal(shape).astype(dtype)
        layer = Recurrent(
            cell, FEATURES, HIDDEN, layers, bidirectional, proj_size=proj_size, bias=bias, param_dtype=dtype, rngs=nnx.Rngs(1)
        )
        rows, out = layers * layer.num_directions, proj_size or HIDDEN
        units = (out, HIDDEN) if cell == "lstm" else (out,)
        x, state = draw(BATCH, TIME, FEATURES), tuple(draw(rows, BATCH, n) for n in units)
        d_outputs, d_final = draw(BATCH, TIME, layer.output_size), tuple(draw(rows, BATCH, n) for n in units)
        theirs = run_torch(torch_twin(layer, dtype), x, state, lengths, d_outputs, d_final)
        ours = run_ours(layer, x, state, lengths, d_outputs, d_final)
        for mine, other in zip(ours, theirs, strict=True):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE[dtype]), mine, other)
            assert jax.tree.leaves(mine)[0].dtype == dtype


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "float64"])
@pytest.mark.parametrize("cell", TORCH)
@pytest.mark.parametrize(("layers", "bidirectional"), [(n, two) for n in (1, 2, 3) for two in (False, True)])
def test_equals_torch_with_lengths_and_initial_state(cell, layers, bidirectional, dtype):
    compare(cell, dtype, layers, bidirectional, lengths=[3, 5, 1])


@pytest.mark.parametrize("cell", TORCH)
def test_equals_torch_without_lengths(cell):
    compare(cell, "float64", 2, True)


@pytest.mark.parametrize("cell", TORCH)
def test_equals_torch_without_bias(cell):
    compare(cell, "float64", 1, True, bias=False)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("layers", "bidirectional", "lengths"), [(1, False, None), (2, True, [2, 5, 4]), (3, False, [5, 1, 2])]
)
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
def test_equals_torch_with_projection(layers, bidirectional, lengths, dtype):
    compare("lstm", dtype, layers, bidirectional, lengths, proj_size=2)


@pytest.mark.parametrize("cell", TORCH)
def test_steps_equal_the_sequence(cell):
    layer = Recurrent(cell, FEATURES, HIDDEN, 2, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).standard_normal((BATCH, TIME, FEATURES), dtype=np.float32)
    outputs, final = layer(x)
    step = jax.jit(lambda x, state: layer.step(x, state))
    state, steps = None, []
    for t in range(TIME):
        y, state = step(x[:, t], state)
        steps.append(y)
    # The same arithmetic, compiled for one step and for five.
    np.testing.assert_allclose(np.stack(steps, 1), outputs, rtol=0, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), state, final)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_bfloat16_keeps_a_float32_state(cell):
    layer = Recurrent(cell, 16, 32, 2, True, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    exact = nnx.merge(*nnx.split(layer))
    exact.dtype = jnp.float32
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 20, 16), dtype=np.float32))

    @jax.jit
    def run(x):
        def loss(x, layer):
            outputs, final = layer(x)
            return jnp.square(outputs.astype(jnp.float32)).mean(), (outputs, final)

        return jax.grad(loss, has_aux=True)(x, layer), jax.grad(loss, has_aux=True)(x, exact)

    (d, (outputs, final)), (d_exact, (exact_outputs, _)) = run(x)
    assert outputs.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(final)} == {jnp.dtype(jnp.float32)}
    # bfloat16 keeps 8 bits: inputs, weights and outputs are off by up to 2^-9 of themselves, which the steps do not add up.
    np.testing.assert_allclose(outputs.astype(jnp.float32), exact_outputs, rtol=0, atol=0.02)
    assert jnp.linalg.norm(d - d_exact) < 0.03 * jnp.linalg.norm(d_exact)


def test_dropout_between_layers_only_in_training():
    layer = Recurrent("gru", FEATURES, HIDDEN, 2, dropout=0.5, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).standard_normal((BATCH, TIME, FEATURES), dtype=np.float32)
    run = nnx.jit(lambda layer, x: layer(x)[0])
    first, second = run(layer, x), run(layer, x)
    assert not np.array_equal(first, second)
    plain = Recurrent("gru", FEATURES, HIDDEN, 2, rngs=nnx.Rngs(0))
    view = evaluation_view(layer)
    np.testing.assert_array_equal(run(view, x), run(view, x))
    np.testing.assert_array_equal(run(view, x), run(plain, x))


def test_dropout_keeps_the_mean():
    layer = Recurrent("rnn_relu", 8, 8, 2, dropout=0.25, rngs=nnx.Rngs(0))
    one = jnp.zeros((8, 8))
    for name, value in {"w_x": jnp.eye(8), "w_h": one, "b_x": one[0], "b_h": one[0]}.items():
        for number in (0, 1):
            getattr(layer, f"{name}_l{number}")[...] = value
    outputs = nnx.jit(lambda layer, x: layer(x)[0])(layer, jnp.ones((50, 40, 8)))
    assert set(np.unique(outputs)) == {np.float32(0), np.float32(1 / 0.75)}
    # 16,000 draws: the standard error of the mean is 0.0046.
    assert abs(outputs.mean() - 1) < 0.02


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cell": "lstmp"}, "cell: 'lstmp' given.*rnn_tanh, rnn_relu, lstm, gru"),
        ({"hidden_size": 0}, "hidden_size: 0 given"),
        ({"num_layers": 0}, "num_layers: 0 given"),
        ({"proj_size": 6}, "proj_size: 6 given.*1 to hidden_size - 1 = 5"),
        ({"cell": "gru", "proj_size": 2}, "proj_size: 2 given"),
        ({"dropout": 1.0}, "dropout: 1.0 is outside"),
    ],
)
def test_bad_arguments(arguments, message):
    good = {"cell": "lstm", "input_size": FEATURES, "hidden_size": HIDDEN}
    with pytest.raises(ValueError, match=message):
        Recurrent(**(good | arguments), rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"x": jnp.zeros((2, 5))}, r"x: shape \(2, 5\) given, \[batch, time, 4\]"),
        ({"x": jnp.zeros((2, 0, 4))}, "has no time step"),
        ({"seq_lengths": [5, 0]}, r"seq_lengths: 0 at position 1, allowed are 1 to 5"),
        ({"seq_lengths": [6, 2]}, r"seq_lengths: 6 at position 0, allowed are 1 to 5"),
        ({"seq_lengths": [5]}, r"seq_lengths: int64 of shape \(1,\) given"),
        ({"seq_lengths": [5.0, 2.0]}, "integers of shape"),
        ({"initial_state": (jnp.zeros((1, 2, 6)), jnp.zeros((1, 2, 7)))}, r"initial_state: shape .* \(1, 2, 6\) is needed"),
        ({"initial_state": jnp.zeros((1, 2, 6))}, r"initial_state: shape \(2, 6\) given"),
    ],
)
def test_bad_inputs(inputs, message):
    layer = Recurrent("lstm", FEATURES, HIDDEN, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=message):
        layer(**({"x": jnp.zeros((2, 5, FEATURES))} | inputs))


def test_no_steps_for_two_directions():
    layer = Recurrent("lstm", FEATURES, HIDDEN, bidirectional=True, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="needs the whole sequence"):
        layer.step(jnp.zeros((2, FEATURES)))


def test_weights_travel_both_ways():
    twin = torch.nn.LSTM(FEATURES, HIDDEN, 2, bidirectional=True, batch_first=True)
    layer = Recurrent("lstm", FEATURES, HIDDEN, 2, True, rngs=nnx.Rngs(0))
    load_weights(layer, twin.state_dict())
    x = torch.randn(BATCH, TIME, FEATURES, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(layer(x.numpy())[0], twin(x)[0].detach().numpy(), rtol=0, atol=1e-6)
    back = to_torch_state_dict(layer)
    assert list(back) == list(twin.state_dict())
    for name, tensor in twin.state_dict().items():
        assert torch.equal(back[name], tensor), name  # bit for bit


def test_program_does_not_grow_with_the_sequence():
    layer = Recurrent("lstm", FEATURES, HIDDEN, rngs=nnx.Rngs(0))
    grad = jax.jit(jax.grad(lambda x: layer(x)[0].sum()))
    lines = {time: grad.lower(jnp.zeros((1, time, FEATURES))).as_text().count("\n") for time in (8, 512)}
    assert lines[8] == lines[512]
