"""The persistent kernels in the interpreter, all blocks of a grid at once, against plain JAX in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from kernels import CellWeights
from kernels.recurrent import config
from kernels.runtime import launch, launches
from tests.kernels.recurrent_operands import assert_close, exact_results, operands, results

ONE_LAYER = [
    (
        "lstm",
        {"batch": 7, "steps": 3, "features": 5, "hidden": 96, "directions": 2},
        {"seq_lengths": [3, 1, 2, 3, 3, 1, 2]},
    ),
    ("lstm", {"batch": 17, "steps": 2, "features": 3, "hidden": 40}, {"reverse": True}),
    ("lstm", {"batch": 1, "steps": 1, "features": 4, "hidden": 200}, {}),
    ("gru", {"batch": 2, "steps": 3, "features": 5, "hidden": 96}, {"seq_lengths": [1, 3], "reverse": True}),
    ("rnn", {"batch": 3, "steps": 4, "features": 5, "hidden": 70, "directions": 2}, {"seq_lengths": [4, 1, 3]}),
]
BOTH_DIRECTIONS = [
    ("gru", {"batch": 3, "steps": 4, "features": 5, "hidden": 20, "layers": 2, "directions": 2}, {"seq_lengths": [4, 1, 3]}),
]
WAVEFRONT = [
    ("lstm", {"batch": 7, "steps": 2, "features": 5, "hidden": 96, "layers": 2}, {"seq_lengths": [2, 1, 2, 2, 1, 1, 2]}),
    ("lstm", {"batch": 1, "steps": 2, "features": 3, "hidden": 20, "layers": 4}, {"reverse": True}),  # more layers than steps
    ("gru", {"batch": 2, "steps": 3, "features": 5, "hidden": 20, "layers": 3}, {"seq_lengths": [1, 3], "reverse": True}),
    ("gru", {"batch": 1, "steps": 1, "features": 4, "hidden": 40, "layers": 2}, {}),
    ("rnn", {"batch": 17, "steps": 4, "features": 5, "hidden": 33, "layers": 2}, {"activation": "relu"}),  # two groups
    ("rnn", {"batch": 2, "steps": 2, "features": 5, "hidden": 70, "layers": 3}, {"seq_lengths": [2, 1]}),
]


def launches_and_results(cell, *given, **options):
    with launch.recording() as calls:
        found = results(cell, "interpret", *given, **options)
    return [(call.kernel.fn.__name__, call.grid[2]) for call in calls], found


@pytest.mark.parametrize(("cell", "shape", "options"), ONE_LAYER + BOTH_DIRECTIONS + WAVEFRONT)
def test_equals_float64(cell, shape, options):
    given = operands(cell, **shape)
    launches, found = launches_and_results(cell, *given, **options)
    # float32 sums of up to 200 terms, over a few steps.
    assert_close(found, exact_results(cell, *given, **options), 1e-5)
    layers, directions = shape.get("layers", 1), shape.get("directions", 1)
    # A stack of one direction is one launch, one of two directions a launch per layer; the grid's last axis is what it holds.
    times, together = (layers, directions) if directions == 2 else (1, layers)
    assert launches == [("forward_kernel", together)] * times + [("backward_kernel", together)] * times


@pytest.mark.parametrize(
    ("cell", "dtype", "directions", "rounding"),
    [("lstm", jnp.bfloat16, 2, 2**-8), ("gru", jnp.float16, 2, 2**-11), ("lstm", jnp.float16, 1, 2**-11)],
)
def test_low_precision(cell, dtype, directions, rounding):
    # Both round the states that are multiplied, the gates that are kept and the gradients that are multiplied, at other places.
    given = operands(cell, 2, 2, 5, 20, layers=3 - directions, directions=directions, dtype=dtype)
    found, expected = (results(cell, name, *given) for name in ("interpret", "xla"))
    assert_close(found, expected, 3 * rounding)
    assert [a.dtype for a in jax.tree.leaves(found)] == [a.dtype for a in jax.tree.leaves(expected)]


@pytest.mark.parametrize(("cell", "directions"), [("gru", 1), ("lstm", 2)])
def test_no_biases_and_dropout_between_layers(cell, directions):
    stack, x, state = operands(cell, 2, 3, 5, 20, layers=2, directions=directions)
    stack = [[CellWeights(w.w_x, w.w_h) for w in layer] for layer in stack]
    options = {"dropout": 0.5, "dropout_key": jax.random.key(3), "seq_lengths": [3, 2]}
    found, expected = (results(cell, name, stack, x, state, **options) for name in ("interpret", "xla"))
    assert_close(found, expected, 1e-5)


def test_a_stack_that_does_not_fit_at_once_runs_in_groups(monkeypatch):
    monkeypatch.setattr(config, "layers_at_once", lambda *_: 2)
    given = operands("lstm", 2, 2, 5, 16, layers=3)
    launches, found = launches_and_results("lstm", *given)
    assert launches == [("forward_kernel", 2), ("forward_kernel", 1), ("backward_kernel", 1), ("backward_kernel", 2)]
    assert_close(found, exact_results("lstm", *given), 1e-5)


def test_how_many_layers_run_at_once():
    def at_once(cell, layers, batch, hidden, dtype, directions=1):
        columns = {"lstm": 4, "gru": 3, "rnn_tanh": 1}[cell] * hidden
        weights = CellWeights(jnp.zeros((hidden, columns), dtype), jnp.zeros((hidden, columns), dtype))
        return config.layers_at_once(cell, batch, [(weights,) * directions] * layers, jnp.dtype(dtype).itemsize)

    with kernels.target("nvidia-h200"):
        assert at_once("lstm", 6, 10, 256, jnp.float16) == 6  # 16 blocks each
        assert at_once("lstm", 9, 10, 256, jnp.float16) == 8  # 128 blocks, the rest in a second launch
        assert at_once("lstm", 6, 10, 256, jnp.float32) == 1  # two products of 256 terms exceed the shared memory
        assert at_once("lstm", 6, 10, 256, jnp.float16, directions=2) == 1
        assert at_once("lstm", 2, 16, 1024, jnp.bfloat16) == 1
        assert at_once("rnn_tanh", 6, 8, 256, jnp.bfloat16) == 6


def test_what_the_kernels_do_not_take():
    stack, x, _ = operands("lstm", 2, 3, 5, 20)
    with pytest.raises(kernels.ImplementationError, match="needs an NVIDIA GPU"):
        kernels.lstm(x, stack, implementation="triton")
    projected = [CellWeights(jnp.zeros((5, 80)), jnp.zeros((4, 80)), w_p=jnp.zeros((20, 4)))]
    with pytest.raises(kernels.ImplementationError, match="no projection"):
        kernels.lstm(x, projected, implementation="interpret")
    large = [CellWeights(jnp.zeros((5, 8192)), jnp.zeros((2048, 8192)))]
    with pytest.raises(kernels.ImplementationError, match=r"hidden size 2048, batch 2.* do not fit on 128 multiprocessors"):
        kernels.lstm(x, large, implementation="interpret")
    # With none named the next one runs.
    assert jax.eval_shape(lambda x: kernels.lstm(x, projected)[0], x).shape == (2, 3, 4)


def test_grids_stay_within_the_device():
    with kernels.target("nvidia-h200") as here:
        for gates in (1, 3, 4):
            for hidden in (16, 96, 200, 256, 768, 1024):
                for batch in (1, 7, 16, 64, 500):
                    for directions, layers in ((1, 1), (2, 1), (1, 2), (1, 6)):
                        plan = config.plan(gates, hidden, batch, directions, 2, layers)
                        if isinstance(plan, config.Plan):
                            assert np.prod(plan.grid) <= here.cores - launches.RESERVED
                            assert plan.grid[0] * plan.units >= hidden
                            assert plan.grid[1] * plan.batch >= batch
                            assert plan.grid[2] == directions * layers
        assert isinstance(config.plan(4, 1024, 64, 1, 2), config.Plan)
        assert isinstance(config.plan(4, 768, 16, 2, 2), config.Plan)
