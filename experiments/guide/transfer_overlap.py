"""Send the next batch while this one is computed.

The link between host and device (PCIe 5 with 16 lanes: 64 GB a second each way on paper, 52 measured) is some seventy
times slower than an H200's memory. A batch that is prepared and sent only after the previous step adds that time to
every step; with one that is in transit during the step, only the longer of the two counts.

Overlap pays where preparing and sending take a good part of the step's time, most where both take equally long: then by
a factor of two. It does not pay where batches are small, or, on a CPU, where the step already keeps all cores busy and
there is no link to cross. Reduce the bytes first: an image of bytes is a quarter the size of one of floats, and the
device converts it without an extra pass. `imagefolder` sends bytes, and so does the case of ResNet-50 below (LeNet's digits
are floats). The modelled steps are those of docs/comparison.md.

Sources: NVIDIA, CUDA Programming Guide v13, "Asynchronous Execution"; NVIDIA, CUDA C++ Best Practices Guide, "Asynchronous
and Overlapping Transfers with Computation" and "Data Transfer Between Host and Device"; NVIDIA, H200 Tensor Core GPU data
sheet (PCIe Gen5: 128 GB/s both ways); Azure/AI-benchmarking-guide, ND_H200_v5_results.md (52 GB/s); JAX documentation,
"Asynchronous dispatch".
"""

from __future__ import annotations

import concurrent.futures
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.errors import UserError
from experiments.guide.topic import Case, Counted, Topic, Variant, normal, variants
from experiments.measuring.device_model import constants
from experiments.measuring.result import RESULTS

LINK = constants("nvidia-h200")["link"]  # bytes a second from the host
PAD = 4
PIPELINES = {"one after the other": "wait", "without waiting": "dispatch", "a thread, one batch ahead": "thread"}
COMPILED = "nvidia-h200/compiled-models.json"
# The training step whose time is taken from the compiled comparison, and the bytes of one batch of it.
BATCHES = {
    "resnet50 256x224x224x3, training step": 256 * (224 * 224 * 3 + 4),
    "lenet5 4096x32x32x1, training step": 4096 * (32 * 32 * 4 + 4),
    "lstm_lm 64x128, training step": 64 * 128 * 4 * 2,
}


def model_figures(counted: Counted, name: str, ahead: bool) -> Mapping[str, float]:
    """A step's modelled time, as COMPILED has it, and its batch's on the link."""
    path = RESULTS / COMPILED
    try:
        rows = {row["name"]: row["contenders"] for row in json.loads(path.read_text())["cases"]}
        step = min(found["modelled_seconds"] for found in rows[name].values() if "modelled_seconds" in found)
    except (FileNotFoundError, KeyError) as error:
        raise UserError(
            f"transfer_overlap: {path.name} holds no {name}; python -m experiments.comparison.compiled models"
        ) from error
    transfer = BATCHES[name] / LINK
    seconds = max(step, transfer) if ahead else step + transfer
    return {"batch_bytes": BATCHES[name], "transfer_ms": 1e3 * transfer, "step_ms": 1e3 * step, "modelled_ms": 1e3 * seconds}


def _modelled(label: str, name: str) -> Case:
    of = lambda ahead: functools.partial(model_figures, name=name, ahead=ahead)
    return Case(
        name=label,
        kind="host",
        variants=(Variant("after the step", None, of(False)), Variant("one batch ahead", None, of(True))),
        unit="ms per step under the time model",
        draw=lambda rng: [],
        reference=list,
        sizes={"check": ()},
    )


def prepare(images: np.ndarray, number: int) -> np.ndarray:
    """A batch cropped at random after padding, flipped at random, from -1 to 1: what an image pipeline does."""
    rng = np.random.default_rng(number)
    n, side = images.shape[:2]
    padded = np.pad(images, ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0)), mode="reflect")
    top, left = rng.integers(0, 2 * PAD + 1, (2, n))
    found = np.empty(images.shape, np.float32)
    for k in range(n):
        found[k] = padded[k, top[k] : top[k] + side, left[k] : left[k] + side]
    flipped = rng.integers(0, 2, n).astype(bool)
    found[flipped] = found[flipped, :, ::-1]
    return found * np.float32(2 / 255) - np.float32(1)


@jax.jit
def step(total, batch, w, v):
    """Stands for a training step: two products, and a state that the next step needs."""
    hidden = jax.nn.relu(batch.reshape(batch.shape[0], -1) @ w)
    return total + jnp.tanh(hidden @ v).mean(0)


def train(images, w, v, *, how: str):
    """The state after a step on each batch of images [batches, batch, side, side, 3]."""
    total, w, v = jnp.zeros(v.shape[1], jnp.float32), jax.device_put(w), jax.device_put(v)
    ready: Callable[[int], jax.Array] = lambda number: jax.device_put(prepare(images[number], number))
    if how == "thread":
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            following = pool.submit(ready, 0)
            for number in range(len(images)):
                batch = following.result()
                if number + 1 < len(images):
                    following = pool.submit(ready, number + 1)
                total = step(total, batch, w, v)
                total.block_until_ready()  # as a loop does that prints its loss
        return total
    for number in range(len(images)):
        total = step(total, ready(number), w, v)
        if how == "wait":
            total.block_until_ready()
    return total


def train_reference(images, w, v):
    total = np.zeros(v.shape[1])
    for number, batch in enumerate(images):
        hidden = np.maximum(prepare(batch, number).reshape(len(batch), -1) @ w, 0)
        total += np.tanh(hidden @ v).mean(0)
    return [total]


@jax.jit
def mean_of_bytes(images):
    return (images.astype(jnp.float32) * (2 / 255) - 1).mean((1, 2, 3))


@jax.jit
def mean_of_floats(images):
    return images.mean((1, 2, 3))


def send(images, *, as_bytes: bool):
    """The mean of each image, sent as bytes or as floats."""
    if as_bytes:
        return mean_of_bytes(jax.device_put(images))
    return mean_of_floats(jax.device_put(images.astype(np.float32) * np.float32(2 / 255) - np.float32(1)))


def sent(counted: Counted, as_bytes: bool) -> Mapping[str, float]:
    n, side = counted.size
    bytes_ = (1 if as_bytes else 4) * n * side * side * 3
    return {"sent_bytes": bytes_, "transfer_ms": 1e3 * bytes_ / LINK}


def draw_training(rng, batches, batch, side, width):
    images = rng.integers(0, 256, (batches, batch, side, side, 3), np.uint8)
    return [images, normal(rng, side * side * 3, width) / np.float32(side), normal(rng, width, 16)]


def picture(figure: Any, row: Mapping[str, Any]) -> None:
    """Four batches, sent after the step or meanwhile: where both take as long, and where the step takes nearly all."""
    panels = figure.subplots(2, 1)
    for axes, label in zip(panels, ("LeNet-5, 4,096 images", "ResNet-50, 256 images"), strict=True):
        variants_of = next(case for case in row["cases"] if case["name"] == label)["variants"]
        for place, (name, variant) in enumerate(variants_of.items()):
            send, step_ms, sent_until, done = variant["compiled"]["transfer_ms"], variant["compiled"]["step_ms"], 0.0, 0.0
            for number in range(4):
                begin = max(sent_until, done) if name == "after the step" else sent_until
                sent_until = begin + send
                done = max(done, sent_until) + step_ms
                axes.barh(-3 * place, send, 0.9, left=begin, color="#D55E00", edgecolor="white", label="transfer")
                axes.barh(-3 * place - 1, step_ms, 0.9, left=done - step_ms, color="#0072B2", edgecolor="white", label="step")
                if name != "after the step" and number:
                    sent_until = max(sent_until, done - step_ms)  # one batch ahead, not more
        axes.set_yticks([-0.5, -3.5], list(variants_of), fontsize=9)
        axes.set_title(label, fontsize=9, loc="left")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.grid(axis="x", color="#D9D9D9", linewidth=0.6)
        axes.set_axisbelow(True)
    handles, names = panels[0].get_legend_handles_labels()
    once = dict(zip(names, handles, strict=True))
    figure.legend(list(once.values()), list(once), fontsize=9, loc="outside upper right", ncols=2)
    panels[-1].set_xlabel("ms, modelled for an H200", fontsize=9)


def answer() -> str:
    images = int(LINK * 22.2e-3 / (224 * 224 * 3 * 4))
    return f"{images:,}: their transfer then takes as long as the step; as bytes, four times as many."


TOPIC = Topic(
    name="transfer_overlap",
    reads=(COMPILED,),
    what="the next batch is in transit while this one is computed",
    text=__doc__ or "",
    picture=picture,
    exercise="A step of ResNet-50 takes 22.2 ms under the time model. How many images could be sent as floats meanwhile?",
    answer=answer,
    kernel="`experiments/data/base.py` (`reader`) reads ahead in threads, and `experiments/training/mesh.py` sends a "
    "batch to the device without waiting for the transfer",
    cases=(
        _modelled("ResNet-50, 256 images", "resnet50 256x224x224x3, training step"),
        _modelled("LeNet-5, 4,096 images", "lenet5 4096x32x32x1, training step"),
        _modelled("LSTM language model, 64 texts", "lstm_lm 64x128, training step"),
        Case(
            name="bytes in place of floats",
            kind="host",
            variants=variants(send, {"floats": {"as_bytes": False}, "bytes": {"as_bytes": True}}, sent),
            figure="sent_bytes",
            draw=lambda rng, n, side: [rng.integers(0, 256, (n, side, side, 3), np.uint8)],
            reference=lambda images: [(images * (2 / 255) - 1).mean((1, 2, 3))],
            sizes={"check": (5, 33), "cpu": (64, 96), "cuda": (256, 224)},
        ),
        Case(
            name="a pipeline of images and its step",
            kind="host",
            variants=variants(train, {label: {"how": how} for label, how in PIPELINES.items()}),
            figure=None,
            draw=draw_training,
            reference=train_reference,
            sizes={"check": (3, 5, 17, 9), "cpu": (6, 256, 32, 512), "cuda": (10, 1024, 32, 8192)},
        ),
    ),
)
