"""The persistent kernels compiled for the H200: what they hold on the chip, and that all their blocks are resident together."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import pytest

import kernels
from kernels import CellWeights
from kernels.runtime import dispatch, launch
from kernels.verification import aot, residency, traffic
from tests.kernels.recurrent_operands import GATES

H200 = "nvidia-h200"


def recorded(cell, batch, steps, features, hidden, layers, directions, dtype):
    """The launches of a forward and backward pass."""
    shape = lambda *dims: jax.ShapeDtypeStruct(dims, jnp.dtype(dtype))
    columns = GATES[cell] * hidden

    def weights(inputs):
        return CellWeights(shape(inputs, columns), shape(hidden, columns), shape(columns), shape(columns))

    stack = [(weights(directions * hidden if layer else features),) * directions for layer in range(layers)]

    def loss(stack, x):
        return getattr(kernels, cell)(x, stack, implementation="interpret")[0].sum()

    with launch.recording() as calls, kernels.target(H200):
        jax.eval_shape(jax.grad(loss), stack, shape(batch, steps, features))
    return calls


@pytest.mark.parametrize(
    ("cell", "batch", "features", "hidden", "layers", "directions", "dtype"),
    [
        ("lstm", 10, 128, 256, 6, 1, "float16"),
        ("lstm", 10, 128, 256, 6, 1, "bfloat16"),
        ("lstm", 10, 128, 256, 1, 2, "bfloat16"),
        ("lstm", 10, 128, 256, 1, 2, "float32"),
        ("lstm", 16, 256, 256, 1, 1, "float32"),
        ("lstm", 64, 256, 1024, 1, 1, "bfloat16"),
        ("lstm", 16, 768, 768, 1, 1, "float16"),
        ("lstm", 1, 64, 64, 2, 1, "float32"),
        ("gru", 64, 128, 128, 1, 1, "float32"),
        ("gru", 32, 512, 512, 3, 1, "bfloat16"),
        ("gru", 64, 1024, 1024, 1, 1, "float16"),
        ("rnn", 8, 1024, 256, 6, 1, "float16"),
        ("rnn", 64, 1024, 1024, 1, 1, "bfloat16"),
    ],
)
def test_compiled_for_the_h200(cell, batch, features, hidden, layers, directions, dtype):
    calls = recorded(cell, batch, 32, features, hidden, layers, directions, dtype)
    assert [call.kernel.fn.__name__ for call in calls] == ["forward_kernel", "backward_kernel"]
    for call in calls:
        found = aot.kernel_resources(call)
        assert found.spilled == 0
        assert found.shared_memory <= dispatch.H200.shared_memory
        assert found.instructions
        assert math.prod(call.grid) <= residency.resident_blocks(call, dispatch.H200)
        # Arrive with a release, poll with an acquire, of the whole device. Nobody reads what the arrival adds to, so Triton 3.9
        # makes it a reduction ("red"), in the same memory order as the atomic operation of 3.6 and 3.7.
        assert re.search(r"(atom|red)\.global\.gpu\.release\.add", found.ptx)
        assert "ld.global.gpu.acquire" in found.ptx
        assert_weights_loaded_once(call, found.ttgir)


def assert_weights_loaded_once(call, ttgir):
    """The load that is as large as the weights stands before the loop over the steps, and so does the copy to shared memory."""
    constants = dict(call.constants)
    depth = constants["PADDED_HIDDEN"] * (2 if constants["LAYERS"] > 1 else 1)
    rows = constants["PADDED_GATES"] * constants["UNITS"]
    shape = f"{rows}x{depth}" if call.kernel.fn.__name__ == "forward_kernel" else f"{depth}x{rows}"
    before, loop = ttgir.split(" scf.for ", 1)
    whole = re.compile(rf"tt\.load .*tensor<{shape}x!tt\.ptr|ttg\.local_(?:alloc|store) .*tensor<{shape}x")
    assert len(re.findall(r"tt\.load .*tensor<" + shape + "x!tt.ptr", before)) == 1
    assert not whole.search(loop)


@pytest.mark.slow
def test_a_stack_is_one_launch_and_moves_what_it_must():
    """Bytes from device memory per step: input product, outputs, kept state; weights once."""
    batch, steps, hidden, layers = 10, 64, 256, 6
    w = CellWeights(
        jax.ShapeDtypeStruct((hidden, 4 * hidden), jnp.float16), jax.ShapeDtypeStruct((hidden, 4 * hidden), jnp.float16)
    )
    x = jax.ShapeDtypeStruct((batch, steps, hidden), jnp.float16)
    compiled = aot.compile_for(H200, lambda x, w: kernels.lstm(x, [w] * layers, implementation="triton")[0], x, w)
    (kernel,) = (k for k in traffic.kernels_of(compiled.as_text()) if "triton_kernel_call" in k.kind)
    assert kernel.times == 1
    per_step = 2 * batch * hidden * (4 + layers * (1 + 4 + 2))  # gates in; h, four activations and c (float32) out
    held = 2 * 2 * layers * hidden * 4 * hidden
    assert kernel.bytes == pytest.approx(steps * per_step + held, rel=0.02)  # initial and final states and biases come on top


@pytest.mark.slow
def test_launches_run_one_after_another():
    """Kernels in a CUDA graph run side by side where neither needs the other, and of two persistent grids each would wait for
    multiprocessors that the other holds. XLA leaves these launches out of its graphs, even where it is told to make small ones.
    """
    x = jax.ShapeDtypeStruct((10, 4, 64), jnp.float16)
    w = CellWeights(jax.ShapeDtypeStruct((64, 256), jnp.float16), jax.ShapeDtypeStruct((64, 256), jnp.float16))
    run = lambda x, w: kernels.lstm(x, [w], implementation="triton")[0]
    text = aot.thunks_for(
        H200, lambda x, y, v, w: run(x, v) + run(y, w), x, x, w, w, options={"xla_gpu_graph_min_graph_size": 1}
    )
    lines = text.splitlines()
    assert sum("kCommandBuffer" in line for line in lines) >= 2
    calls = [line for line in lines if "kCustomCall" in line]
    assert len(calls) == 2
    assert not any(line.startswith(" ") for line in calls)


def test_resident_blocks():
    found = aot.Resources(registers=128, spilled=0, shared_memory=100_000, instructions=frozenset(), ttgir="", ptx="")
    of = lambda num_warps=8, **changes: residency.blocks_per_core(
        dataclasses.replace(found, **changes), num_warps, dispatch.H200
    )
    assert of() == 2  # both by registers, 65536 / (256 * 128), and by shared memory, 233472 / 101024
    assert of(shared_memory=115_713) == 1
    assert of(shared_memory=232_449) == 0
    assert of(registers=129) == 1  # a warp's registers come in portions of 256
    assert of(registers=32, shared_memory=0) == 8  # 2048 threads
    assert of(1, registers=16, shared_memory=0) == 32


def test_a_grid_that_is_not_resident_is_refused(monkeypatch):
    monkeypatch.setattr(residency, "resident_blocks", lambda call, device: 5)
    weights = CellWeights(jnp.zeros((64, 256)), jnp.zeros((64, 256)))
    run = lambda **options: kernels.lstm(jnp.zeros((1, 2, 64)), [[weights, weights]], **options)[0]
    message = r"forward_kernel needs its 8 blocks to run at the same time, and nvidia-h200 holds 5"
    with kernels.target(H200):
        with pytest.raises(kernels.ImplementationError, match=message), launch.recording() as calls:
            run(implementation="triton")
        assert calls == []
        with pytest.raises(kernels.ImplementationError, match=message), kernels.use("triton"):
            run()
        # Where a measurement has chosen it, the next one runs.
        monkeypatch.setattr(dispatch, "fastest", lambda operator, shape_class: "triton")
        assert run().shape == (1, 2, 128)
