"""Convolutional networks against torch on this CPU: python -m experiments.benchmarks.conv_models_cpu [--only NAME].

A training step (loss, gradient, SGD with momentum, running statistics) and an inference, float32, the same weights and images,
called in turn. Writes experiments/results/cpu/conv-models.json; the ratio is ours over torch's, so lower is better.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

import zoo
from experiments.losses import cross_entropy
from experiments.measuring import clock, result
from experiments.peers.torch_vision import to_torch, torch_loss, torch_model, zoo_model

# name: model, image size, batch, classes, whether to train; and the ratio that is aimed at
CASES: dict[str, tuple[str, int, int, int, bool, float]] = {
    "resnet18-32-train": ("resnet18", 32, 64, 10, True, 1.5),
    "alexnet-224-train": ("alexnet", 224, 4, 1000, True, 1.3),
    "vgg11-224-train": ("vgg11", 224, 4, 1000, True, 1.3),
    "googlenet-224-train": ("googlenet", 224, 4, 1000, True, 1.5),
    "alexnet-224-infer": ("alexnet", 224, 4, 1000, False, 1.5),
    "vgg11-224-infer": ("vgg11", 224, 4, 1000, False, 1.5),
    "resnet18-224-infer": ("resnet18", 224, 4, 1000, False, 1.5),
    "resnet50-224-infer": ("resnet50", 224, 4, 1000, False, 1.5),
    "resnext50_32x4d-224-infer": ("resnext50_32x4d", 224, 4, 1000, False, 1.5),
    "googlenet-224-infer": ("googlenet", 224, 4, 1000, False, 1.5),
}
RATE, MOMENTUM = 1e-4, 0.9


def ours(peer: torch.nn.Module, name: str, images: np.ndarray, labels: np.ndarray, train: bool) -> Callable[[], None]:
    params, state, apply = zoo.functional(zoo_model(name, peer.state_dict(), num_classes=int(labels.max()) + 1))
    x, y = jnp.asarray(images), jnp.asarray(labels)
    if not train:
        infer = jax.jit(lambda params, state, x: apply(params, state, x)[0], compiler_options=zoo.compiler_options())
        return lambda: infer(params, state, x).block_until_ready()

    def step(params: Any, state: Any, momentum: Any) -> tuple[Any, Any, Any]:
        def loss(params: Any) -> tuple[jax.Array, Any]:
            outputs, new = apply(params, state, x, train=True)
            return cross_entropy(outputs, y)[0], new

        gradient, state_ = jax.grad(loss, has_aux=True)(params)
        momentum = jax.tree.map(lambda m, g: MOMENTUM * m + g, momentum, gradient)
        return jax.tree.map(lambda p, m: p - RATE * m, params, momentum), state_, momentum

    run = jax.jit(step, donate_argnums=(0, 1, 2), compiler_options=zoo.compiler_options())
    carried = [params, state, jax.tree.map(jnp.zeros_like, params)]

    def call() -> None:
        carried[:] = run(*carried)
        jax.block_until_ready(carried)

    return call


def torchs(peer: torch.nn.Module, images: np.ndarray, labels: np.ndarray, train: bool) -> Callable[[], None]:
    x = to_torch(images)
    if not train:
        peer.eval()

        def infer() -> None:
            with torch.inference_mode():
                peer(x)

        return infer
    peer.train()
    optimizer, target = torch.optim.SGD(peer.parameters(), RATE, MOMENTUM), torch.from_numpy(labels).long()

    def step() -> None:
        optimizer.zero_grad()
        torch_loss(peer(x), target).backward()
        optimizer.step()

    return step


def measure(case: str, rounds: int) -> dict[str, Any]:
    name, size, batch, classes, train, aim = CASES[case]
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, size, size, 3)).astype(np.float32)
    labels = rng.integers(0, classes, batch).astype(np.int32)
    labels[0] = classes - 1
    peer = torch_model(name, num_classes=classes)
    what = f"{'training step' if train else 'inference'}, batch {batch} at {size}"
    sides = ours(peer, name, images, labels, train), torchs(peer, images, labels, train)
    return {"model": name, "what": what} | clock.beside_torch(*sides, rounds) | {"aim": aim}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args(arguments)
    cases = result.kept("conv-models", "cases")
    for case in options.only:
        cases[case] = measure(case, options.rounds)
        print(f"{case}: {cases[case]['ratio']:.2f} of torch's time (aim {cases[case]['aim']})", flush=True)
        protocol = f"float32, {torch.get_num_threads()} torch threads, {options.rounds} rounds in turn after two to warm up"
        print(result.save("conv-models", {"protocol": protocol, "cases": cases}))


if __name__ == "__main__":
    zoo.keep_freed_memory()
    main()
