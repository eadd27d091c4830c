"""A GAN's training step beside torch's on this CPU: python -m experiments.benchmarks.gan_cpu.

One step is a discriminator update and a generator update, non-saturating loss, Adam, batch 64, float32, on the digits; both
sides draw their latent vectors, and run the generator once for both updates. Also the two forms of DCGAN's transposed
convolutions, timed here and counted in what XLA compiles for the H200. Writes experiments/results/cpu/gan-cpu.json and
experiments/results/nvidia-h200/conv-transpose.json. About two minutes with nothing else running.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

import kernels
import zoo
from experiments import data
from experiments.measuring import clock, counting, result
from experiments.peers.torch_gans import generate, score, torch_dcgan, torch_mlp
from experiments.recipes import find
from experiments.training import mesh as meshes
from experiments.training.stepper import Stepper
from experiments.training.tasks import make_task
from kernels.verification import aot

BATCH, RATE, BETA1 = 64, 2e-4, 0.5
CALL = 11  # steps of gan_mlp compiled into one call, as in its recipe
# name: model, model options, steps per call, aim
CASES: dict[str, tuple[str, str, int, float]] = {
    "gan_mlp": ("gan_mlp", "", CALL, 0.6),
    "dcgan-32": ("dcgan", "image_size=32,generator_width=64,discriminator_width=64", 1, 1.5),
    "dcgan-32-narrow": ("dcgan", "image_size=32,generator_width=16,discriminator_width=16", 1, 1.5),
}
# DCGAN's upsampling layers: input and output channels, at the size of their input
LAYERS = {"4x4, 256 to 128": (4, 256, 128), "8x8, 128 to 64": (8, 128, 64), "16x16, 64 to 1": (16, 64, 1)}
FORMS = ("dilated", "subpixel")


def ours(model: str, options: str, images: np.ndarray, steps: int) -> Callable[[], Any]:
    recipe = dataclasses.replace(
        find(model), model_options=options, batch_size=BATCH, learning_rate=RATE, momentum=BETA1, ema=None, task_options=""
    )
    dataset = data.load("digits", size=images.shape[1], shift=0)
    stepper = Stepper(make_task(recipe, dataset, 1000, 22), recipe, meshes.make_mesh("data=-1"))
    batch = {"image": jnp.asarray(images), "label": jnp.zeros(BATCH, jnp.int32)}

    def call() -> None:
        stepper.step([batch] * steps)
        jax.block_until_ready(stepper.leaves)

    return call


def torchs(model: str, width: int, images: np.ndarray, steps: int) -> Callable[[], Any]:
    torch.manual_seed(0)
    peer = torch_mlp() if model == "gan_mlp" else torch_dcgan(images.shape[1], width, 1)
    real = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    adam = lambda part: torch.optim.Adam(peer[part].parameters(), RATE, betas=(BETA1, 0.999), fused=True)
    optimizer_g, optimizer_d = adam("generator"), adam("discriminator")
    softplus = torch.nn.functional.softplus

    def step() -> None:
        fake = generate(model, peer, torch.randn(BATCH, 100))
        optimizer_d.zero_grad()
        loss = softplus(-score(model, peer, real)).mean() + softplus(score(model, peer, fake.detach())).mean()
        loss.backward()
        optimizer_d.step()
        optimizer_g.zero_grad()
        softplus(-score(model, peer, fake)).mean().backward()
        optimizer_g.step()

    def call() -> None:
        for _ in range(steps):
            step()

    return call


def step_times(name: str) -> dict[str, Any]:
    model, options, steps, aim = CASES[name]
    size = 28 if model == "gan_mlp" else 32
    width = int(options.rpartition("=")[2] or 0)
    images = np.random.default_rng(0).uniform(-1, 1, (BATCH, size, size, 1)).astype(np.float32)
    zoo, peer = ours(model, options, images, steps), torchs(model, width, images, steps)
    # Several calls in a row where a step is short: the threads of the side before spin for a while.
    calls = 5 if steps > 1 else 1
    contenders = {"zoo": lambda: [zoo() for _ in range(calls)], "torch": lambda: [peer() for _ in range(calls)]}
    seconds = {
        side: {key: value / (calls * steps) for key, value in times.items()}
        for side, times in clock.interleaved(contenders, 25).items()
    }
    return {"seconds": seconds, "ratio": round(seconds["zoo"]["median"] / seconds["torch"]["median"], 3), "aim": aim}


def with_gradients(form: str) -> Callable:
    """Output and both gradients of a layer, as a training step needs them."""

    def run(x: jax.Array, w: jax.Array, dy: jax.Array) -> Any:
        y, pull = jax.vjp(lambda x, w: kernels.conv_transpose(x, w, 2, 1, form=form), x, w)
        return y, pull(dy)

    return run


def shapes(layer: str, batch: int) -> tuple[tuple[int, ...], ...]:
    """The shapes of input, kernel and output."""
    size, channels, out = LAYERS[layer]
    return (batch, size, size, channels), (4, 4, channels, out), (batch, 2 * size, 2 * size, out)


def form_times(layer: str) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.standard_normal(s, np.float32)) for s in shapes(layer, BATCH)]
    compiled = {form: jax.jit(with_gradients(form), compiler_options=zoo.compiler_options()) for form in FORMS}
    first, second = (jax.tree.leaves(compiled[form](*arrays)) for form in FORMS)
    for a, b in zip(first, second, strict=True):  # the same sums in another order, up to 256 * 16 * 64 terms
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(jnp.abs(b).max()))
    calls: dict[str, Callable[[], Any]] = {
        form: functools.partial(lambda f: jax.block_until_ready(f(*arrays)), f) for form, f in compiled.items()
    }
    return {"seconds": clock.interleaved(calls, 25)}


def form_kernels(layer: str, batch: int = 128) -> dict[str, Any]:
    """Kernels, bytes and temporary memory of what XLA compiles for the H200."""
    found = {}
    for form in FORMS:
        arrays = [jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in shapes(layer, batch)]
        program = aot.compile_for("nvidia-h200", with_gradients(form), *arrays)
        kernels, moved = counting.total(program)
        found[form] = {"kernels": kernels, "bytes": moved, "temporary_bytes": counting.temporary_bytes(program)}
    return found


def main() -> None:
    steps = {}
    for name in CASES:
        steps[name] = step_times(name)
        print(f"{name}: {steps[name]['ratio']:.2f} of torch's time (aim {steps[name]['aim']})", flush=True)
    forms = {}
    for layer in LAYERS:
        forms[layer] = form_times(layer)
        print(layer, {form: f"{s['median'] * 1e3:.2f} ms" for form, s in forms[layer]["seconds"].items()}, flush=True)
    threads = f"float32, batch {BATCH}, {torch.get_num_threads()} torch threads, 25 rounds in turn after two to warm up"
    print(result.save("gan-cpu", {"protocol": threads, "steps": steps, "conv_transpose": forms}))
    compiled = {layer: form_kernels(layer) for layer in LAYERS}
    for layer, found in compiled.items():
        print(layer, found)
    protocol = "output and both gradients, bfloat16, batch 128; compiled, not run"
    path = result.save("conv-transpose", {"protocol": protocol, "layers": compiled}, "nvidia-h200")
    print(path)


if __name__ == "__main__":
    zoo.keep_freed_memory()
    main()
