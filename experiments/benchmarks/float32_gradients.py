"""How far float32 gradients are from float64's, ours and torch's, over several draws of images and labels.

    python -m experiments.benchmarks.float32_gradients [--models NAME ...] [--draws N]

One draw tells little: the same network is within 1e-4 in one and a tenth away in the next, probably as rounding does or does
not move a ReLU's input to the other side of zero. Writes experiments/results/cpu/float32-gradients.json.
"""

from __future__ import annotations

import argparse
import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

import zoo
from experiments.losses import cross_entropy
from experiments.measuring import result
from experiments.peers import torch_vision

SIZE, BATCH, LIMIT = 64, 4, 1e-3


def measure(name: str, draws: int) -> dict[str, Any]:
    """For each draw the worst gradient's distance from torch's float64, relative to that gradient's largest value."""
    peer = torch_vision.torch_model(name)
    model = torch_vision.zoo_model(name, peer.state_dict())
    params, state, apply = zoo.functional(model)
    gradient = torch_vision.quick_jit(jax.grad(lambda p, x, y: cross_entropy(apply(p, state, x, train=True)[0], y)[0]))

    def torchs(images: np.ndarray, labels: np.ndarray, dtype: torch.dtype) -> dict[str, np.ndarray]:
        copied = copy.deepcopy(peer).to(dtype).train()
        outputs = copied(torch_vision.to_torch(images).to(dtype))
        torch_vision.torch_loss(outputs, torch.from_numpy(labels).long()).backward()
        return {n: p.grad.double().numpy() for n, p in copied.named_parameters() if p.grad is not None}

    found: dict[str, Any] = {"zoo": [], "torch": []}
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        images = rng.normal(size=(BATCH, SIZE, SIZE, 3)).astype(np.float32)
        labels = rng.integers(0, 1000, BATCH).astype(np.int32)
        exact = torchs(images, labels, torch.float64)
        drawn = gradient(params, images, jnp.asarray(labels))
        nnx.update(model, torch_vision.as_state(nnx.state(model, nnx.Param), drawn))
        ours, theirs = zoo.weights.torch_arrays(model), torchs(images, labels, torch.float32)
        for which, values in (("zoo", ours), ("torch", theirs)):
            found[which].append(max(float(np.abs(values[n] - e).max() / np.abs(e).max()) for n, e in exact.items()))
    return found | {f"{which}_above_limit": sum(e > LIMIT for e in found[which]) for which in ("zoo", "torch")}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["googlenet", "resnet50"])
    parser.add_argument("--draws", type=int, default=8)
    options = parser.parse_args(arguments)
    models = result.kept("float32-gradients", "models")
    for name in options.models:
        models[name] = {"draws": options.draws} | measure(name, options.draws)
        print(name, models[name], flush=True)
        result.save("float32-gradients", {"size": SIZE, "batch": BATCH, "limit": LIMIT, "models": models})


if __name__ == "__main__":
    main()
