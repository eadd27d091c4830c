"""The LSTM beside torch's on this CPU: python -m experiments.benchmarks.recurrent_cpu [--rounds N] [--out FILE].

Rounds of both, one after the other, so that whatever else the machine does meets both; a ratio is ours over torch's. About
a minute with nothing else running.
"""

from __future__ import annotations

import argparse
import datetime
import pathlib
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

import zoo
from experiments.errors import run
from experiments.training import records

OUT = pathlib.Path("experiments/results/cpu/recurrent-cpu.json")


def interleaved(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int, calls: int = 1) -> dict[str, float]:
    """Milliseconds per call, medians over the rounds with the 20th and 80th percentiles, and the median ratio of a round."""
    times: dict[str, list[float]] = {"ours": [], "torch": []}
    for _ in range(2):
        ours(), theirs()
    for _ in range(rounds):
        for name, function in (("ours", ours), ("torch", theirs)):
            begin = time.perf_counter()
            for _ in range(calls):
                function()
            times[name].append((time.perf_counter() - begin) / calls * 1e3)
    figures = {
        f"{name}_{label}_ms": round(float(np.percentile(values, percent)), 4)
        for name, values in times.items()
        for label, percent in (("p20", 20), ("median", 50), ("p80", 80))
    }
    ratio = np.median(np.array(times["ours"]) / np.array(times["torch"]))
    return figures | {"ratio": round(float(ratio), 3)}


def twins(hidden: int) -> tuple[zoo.Recurrent, torch.nn.LSTM]:
    layer = zoo.Recurrent("lstm", hidden, hidden, rngs=nnx.Rngs(0))
    twin = torch.nn.LSTM(hidden, hidden, batch_first=True)
    twin.load_state_dict(zoo.to_torch_state_dict(layer))
    return layer, twin


def training(steps: int, batch: int, hidden: int, rounds: int) -> dict[str, float]:
    """Forward and backward: gradients of the input and of all weights."""
    layer, twin = twins(hidden)
    x = np.random.default_rng(0).standard_normal((batch, steps, hidden), dtype=np.float32)
    graph, params = nnx.split(layer)
    gradient = jax.jit(jax.grad(lambda params, x: jnp.square(nnx.merge(graph, params)(x)[0]).sum(), argnums=(0, 1)))
    ours_x, torch_x = jnp.asarray(x), torch.tensor(x, requires_grad=True)

    def theirs() -> None:
        twin.zero_grad()
        torch_x.grad = None
        twin(torch_x)[0].square().sum().backward()

    ours = lambda: jax.block_until_ready(gradient(params, ours_x))
    d_params, d_x = ours()
    theirs()
    # The same function is timed on both sides: gradients agree to float32 sums over `steps` steps.
    np.testing.assert_allclose(d_x, torch_x.grad, rtol=0, atol=1e-4)
    assert twin.weight_hh_l0.grad is not None
    np.testing.assert_allclose(d_params["w_h_l0"][...].T, twin.weight_hh_l0.grad, rtol=1e-3, atol=1e-2)
    return interleaved(ours, theirs, rounds)


def streaming(hidden: int, rounds: int) -> dict[str, float]:
    """Inference of one step, batch 1, with the state carried."""
    layer, twin = twins(hidden)
    twin.eval()
    graph, params = nnx.split(layer)
    leaves, structure = jax.tree.flatten(params)
    step = jax.jit(lambda leaves, x, state: nnx.merge(graph, jax.tree.unflatten(structure, leaves)).step(x, state))
    x = np.random.default_rng(0).standard_normal((1, hidden), dtype=np.float32)
    ours_x, torch_x = jnp.asarray(x), torch.tensor(x)[:, None]
    carried: dict[str, Any] = {"ours": layer.zero_state(1), "torch": (torch.zeros(1, 1, hidden), torch.zeros(1, 1, hidden))}

    def ours() -> None:
        output, carried["ours"] = step(leaves, ours_x, carried["ours"])
        output.block_until_ready()

    def theirs() -> None:
        with torch.inference_mode():
            _, carried["torch"] = twin(torch_x, carried["torch"])

    return interleaved(ours, theirs, rounds, calls=100)


def compile_seconds(hidden: int, lengths: tuple[int, ...] = (16, 128, 1024)) -> dict[str, float]:
    """Lowering and compiling forward and backward, for each length of the sequence; the best of three."""
    layer, _ = twins(hidden)
    graph, params = nnx.split(layer)

    def once(steps: int) -> float:
        gradient = jax.jit(jax.grad(lambda params, x: jnp.square(nnx.merge(graph, params)(x)[0]).sum(), argnums=(0, 1)))
        begin = time.perf_counter()
        gradient.lower(params, jax.ShapeDtypeStruct((32, steps, hidden), jnp.float32)).compile()
        return time.perf_counter() - begin

    return {str(steps): round(min(once(steps) for _ in range(3)), 3) for steps in lengths}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.recurrent_cpu", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    options = parser.parse_args(arguments)
    results = {
        "measured": True,
        "date": datetime.date.today().isoformat(),
        "device": f"{jax.devices()[0].platform}, {torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "torch": torch.__version__},
        "lstm_128_steps_batch_32_hidden_256_forward_backward": training(128, 32, 256, options.rounds),
        "lstm_one_step_batch_1_hidden_256_inference": streaming(256, options.rounds),
        "compile_seconds_by_steps": compile_seconds(256),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    records.write_json(options.out, results)
    for name, value in results.items():
        print(f"{name}: {value}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
