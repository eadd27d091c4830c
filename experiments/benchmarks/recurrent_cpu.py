"""The LSTM beside torch's on this CPU. python -m experiments.benchmarks.recurrent_cpu.

Writes experiments/results/cpu/recurrent-cpu.json: forward and backward of a sequence, inference of one step, and the time to
compile sequences of several lengths. A ratio is our median over torch's. About a minute with nothing else running.
"""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

import zoo
from experiments.measuring import clock, result

STEPS, BATCH, HIDDEN = 128, 32, 256
CALLS = 200  # of one step, timed as one
LENGTHS = (16, 128, 1024)


def twins() -> tuple[zoo.Recurrent, torch.nn.LSTM]:
    """The same layer in both libraries, with the same weights."""
    layer = zoo.Recurrent("lstm", HIDDEN, HIDDEN, rngs=nnx.Rngs(0))
    twin = torch.nn.LSTM(HIDDEN, HIDDEN, batch_first=True)
    twin.load_state_dict(zoo.to_torch_state_dict(layer))
    return layer, twin


def gradient_of(layer: zoo.Recurrent) -> tuple[Any, nnx.State]:
    """A new jitted gradient of the sum of squared outputs by weights and input, and the weights."""
    graph, params = nnx.split(layer)
    loss = lambda params, x: jnp.square(nnx.merge(graph, params)(x)[0]).sum()
    return jax.jit(jax.grad(loss, argnums=(0, 1)), compiler_options=zoo.compiler_options()), params


def training() -> dict[str, Any]:
    """Forward and backward: gradients of the input and of all weights."""
    layer, twin = twins()
    x = np.random.default_rng(0).standard_normal((BATCH, STEPS, HIDDEN), dtype=np.float32)
    gradient, params = gradient_of(layer)
    ours_x, torch_x = jnp.asarray(x), torch.tensor(x, requires_grad=True)

    def theirs() -> None:
        twin.zero_grad()
        torch_x.grad = None
        twin(torch_x)[0].square().sum().backward()

    ours = lambda: jax.block_until_ready(gradient(params, ours_x))
    theirs()
    assert torch_x.grad is not None
    # Both sides compute the same thing: gradients agree up to float32 sums over the steps.
    np.testing.assert_allclose(ours()[1], torch_x.grad, rtol=0, atol=1e-4)
    return clock.beside_torch(ours, theirs, rounds=40)


def streaming() -> dict[str, Any]:
    """Inference of one step at batch 1, with the state carried on."""
    layer, twin = twins()
    graph, params = nnx.split(layer)
    leaves, structure = jax.tree.flatten(params)
    apply = lambda leaves, x, state: nnx.merge(graph, jax.tree.unflatten(structure, leaves)).step(x, state)
    step = jax.jit(apply, compiler_options=zoo.compiler_options())
    x = np.random.default_rng(0).standard_normal((1, HIDDEN), dtype=np.float32)
    ours_x, torch_x = jnp.asarray(x), torch.tensor(x)[:, None]

    def ours() -> None:
        state = layer.zero_state(1)
        for _ in range(CALLS):
            output, state = step(leaves, ours_x, state)
        output.block_until_ready()

    def theirs() -> None:
        state = (torch.zeros(1, 1, HIDDEN), torch.zeros(1, 1, HIDDEN))
        with torch.inference_mode():
            for _ in range(CALLS):
                _, state = twin(torch_x, state)

    return clock.beside_torch(ours, theirs, rounds=20) | {"calls": CALLS}


def compile_seconds(steps: int) -> float:
    """Seconds to lower and compile forward and backward; the best of three."""
    times = []
    for _ in range(3):
        gradient, params = gradient_of(twins()[0])
        begun = time.perf_counter()
        gradient.lower(params, jax.ShapeDtypeStruct((BATCH, steps, HIDDEN), jnp.float32)).compile()
        times.append(time.perf_counter() - begun)
    return round(min(times), 3)


def main() -> None:
    figures = {
        "lstm": {"steps": STEPS, "batch": BATCH, "hidden": HIDDEN, "layers": 1, "dtype": "float32"},
        "forward_backward": training(),
        "one_step_batch_1": streaming(),
        "compile_seconds_by_steps": {str(steps): compile_seconds(steps) for steps in LENGTHS},
    }
    for name, value in figures.items():
        print(f"{name}: {value}")
    print(result.save("recurrent-cpu", figures))


if __name__ == "__main__":
    zoo.keep_freed_memory()
    main()
