"""Reuse memory: donation, and host memory that the device can access.

XLA allocates a buffer for every result, so a step that computes new weights from old ones holds both. *Donation*
(`jax.jit(f, donate_argnums=...)`) declares that an argument is not needed after the call: a result of the same shape
reuses its buffer. It pays for the state of a training step, whose old and new values need not both be held; it brings
nothing for an argument whose shape no result has, and the donated array cannot be used again.

Transfers read host memory by DMA, which needs pages that cannot be moved. Ordinary ("pageable") memory is first copied
into such a buffer; *pinned* memory (`memory_kind="pinned_host"`) is sent directly, and only then does an asynchronous
copy return at once. It pays for buffers that are sent repeatedly, such as batches, or weights and activations that are
offloaded to the host. Every pinned page is lost to all other uses, and pinning takes longer than a single copy saves.

Sources: NVIDIA, CUDA Programming Guide v13, "Unified and System Memory"; NVIDIA, CUDA C++ Best Practices Guide, "Pinned
Memory"; JAX documentation, "Buffer donation" and "JAX Memories and Host Offloading".
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.guide.topic import Case, Counted, Topic, Variant, normal
from kernels.verification import aot

RATE = 0.1


def update(weights, gradient):
    """A step of gradient descent."""
    return weights - RATE * gradient


def norm(weights, gradient):
    """The squares of the weights and of the gradient, added up."""
    return jnp.sum(weights * weights) + jnp.sum(gradient * gradient)


@contextlib.contextmanager
def _unusable() -> Iterator[None]:
    """Without JAX's warning of a donated array that no result can use, which is what a case is about."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Some donated buffers were not usable")
        yield


@functools.lru_cache(maxsize=16)
def held(kind: str, call: Any, shapes: tuple[Any, ...], donated: tuple[int, ...]) -> int:
    """Bytes of device memory that a call holds at most: arguments, results and temporaries, less what shares a place."""
    with _unusable():
        found = aot.compile_for(kind, call, *shapes, donate=donated).memory_analysis()
    assert found is not None
    parts = (found.argument_size_in_bytes, found.output_size_in_bytes, found.temp_size_in_bytes)
    return sum(parts) - found.alias_size_in_bytes


def _variant(name: str, call: Any, donated: tuple[int, ...]) -> Variant:
    def figures(counted: Counted) -> Mapping[str, float]:
        shapes = tuple(counted.case.shapes(counted.size))
        return {"held_bytes": held(counted.kind, call, shapes, donated)}

    def run(*inputs):
        with _unusable():
            return jax.jit(call, donate_argnums=donated)(*map(jnp.array, inputs))

    return Variant(name, run, figures)


def _donated(name: str, call: Any, reference: Any) -> Case:
    return Case(
        name=name,
        kind="host",
        variants=(_variant("kept", call, ()), _variant("donated", call, (0,))),
        figure="held_bytes",
        draw=lambda rng, size: [normal(rng, size), normal(rng, size)],
        reference=reference,
        sizes={"check": (1_001,), "compile": (2**25,)},
    )


def sent(x, *, pinned):
    """x plus 1 on the device; from pinned memory, where it is put first."""
    device = jax.local_devices()[0]
    place = lambda kind: jax.sharding.SingleDeviceSharding(device, memory_kind=kind)
    if pinned:
        x = jax.device_put(x, place("pinned_host"))
    return jax.device_put(x, place("device")) + 1


def picture(figure: Any, row: Mapping[str, Any]) -> None:
    """What the update holds, with and without donation."""
    axes = figure.subplots()
    case = next(case for case in row["cases"] if case["name"] == "the state of a step")
    megabytes = {name: variant["compiled"]["held_bytes"] / 1e6 for name, variant in case["variants"].items()}
    size = case["variants"]["donated"]["compiled"]["held_bytes"] / 2e6
    for y, (name, total) in enumerate(megabytes.items()):
        for n, part in enumerate(("weights", "gradient", "new weights")[: round(total / size)]):
            label = "weights, then new weights" if name == "donated" and n == 0 else part
            axes.barh(y, 0.97 * size, left=n * size, color=("#7F7F7F", "#D9D9D9", "#D55E00")[n])
            axes.text((n + 0.5) * size, y, label, ha="center", va="center", fontsize=9)
    axes.set_yticks(range(len(megabytes)), list(megabytes))
    axes.set_xlabel("MB of device memory (compiled for an H200)", fontsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)


def answer() -> str:
    spec = jax.ShapeDtypeStruct((2**20,), jnp.float32)
    both = held("nvidia-h200", update, (spec, spec), (0, 1)) / 2**20
    return f"{both:g} MB, as with one donated: the single result can reuse only one buffer."


TOPIC = Topic(
    name="memory_use",
    what="donated arguments, and pinned host memory",
    text=__doc__ or "",
    kernel="`experiments/training/stepper.py` donates the whole state of a training step; "
    "`experiments/training/mesh.py` sends batches to the devices without waiting",
    picture=picture,
    exercise="An update takes weights and a gradient of 4 MB each. How much memory does it hold if both are donated?",
    answer=answer,
    cases=(
        _donated("the state of a step", update, lambda weights, gradient: [weights - RATE * gradient]),
        _donated(
            "no result of its shape",
            norm,
            lambda *both: [sum(np.square(x, dtype=np.float64).sum() for x in both)],
        ),
        Case(
            name="from pinned memory",
            kind="host",
            variants=tuple(
                Variant(name, functools.partial(sent, pinned=pinned))
                for name, pinned in (("pageable", False), ("pinned first", True))
            ),
            figure=None,
            reference=lambda x: [x + 1],
            sizes={"check": (1_001,), "cuda": (2**26,)},
        ),
    ),
)
