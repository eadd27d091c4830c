"""A launch costs more than a small kernel, and a graph makes it cheaper.

The host submits kernels to a *stream*, a queue that the device processes in order. On a real H200 small kernels in a
stream take 2.4 us each, from start to start, and 1.3 us if they were recorded once as a *CUDA graph* that a single call
replays (public measurement, see below). Transferring 1 MB takes a kernel 0.24 us, so the time of a chain of small
kernels is mostly that of their launches.

JAX does not expose streams. XLA lists the steps of a program (its *thunks*), and puts runs of kernels into graphs,
which it calls *command buffers*: on by default for fusions and library calls, not for loops. The kernels of one program
run in the order of the list on one stream, each call is queued behind the previous one, and only collectives and copies
to and from the host have streams of their own. A command buffer keeps the dependencies of the list, so independent
kernels could run concurrently; the last case below shows four independent chains that XLA nevertheless runs one after
another.

Graphs pay where there are many short kernels. They bring nothing where kernels are long, and a single fused kernel
beats both. A loop whose length is computed on the device involves the host in every iteration, and so does a jax-triton
kernel, which JAX 0.10 to 0.12 leave outside command buffers.

Sources: NVIDIA, CUDA Programming Guide v13, "CUDA Graphs" and "Asynchronous Execution"; te42kyfo/gpu-benches,
gpu-small-kernels/h200.txt and h200_graph.txt; OpenXLA, flag xla_gpu_enable_command_buffer.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.guide.topic import Case, Counted, Topic, Variant, normal
from experiments.measuring.device_model import constants
from kernels.verification import aot

STEPS = 32
OFF: dict[str, str] = {"xla_gpu_enable_command_buffer": ""}  # of XLA's options
ON: dict[str, str] = {}
_THUNK = re.compile(r"^( *)\d+: (k\w+) +\[(?:prev=(\d+))?", re.M)


def chain(x, *, chains=1, fused=False):
    """STEPS times tanh(2 x), a kernel each unless `fused`; the sum of so many such chains that start from multiples of x."""
    hold = (lambda v: v) if fused else jax.lax.optimization_barrier
    total = jnp.zeros_like(x)
    for number in range(chains):
        v = hold(x * (number + 1))
        for _ in range(STEPS // chains):
            v = hold(jnp.tanh(2 * v))
        total = total + v
    return total


def chain_reference(x, chains=1):
    total = np.zeros(x.shape)
    for number in range(chains):
        v = x * np.float64(number + 1)
        for _ in range(STEPS // chains):
            v = np.tanh(2 * v)
        total += v
    return [total]


@functools.lru_cache(maxsize=16)
def thunks(kind: str, shape: tuple[int, ...], options: tuple[tuple[str, str], ...], **of: Any) -> str:
    return aot.thunks_for(kind, functools.partial(chain, **of), jax.ShapeDtypeStruct(shape, jnp.float32), options=dict(options))


def host_calls(listed: str) -> tuple[int, int]:
    """What the host calls, and kernels: those of a command buffer are one call."""
    found = _THUNK.findall(listed)
    outer = [kind for indent, kind, _ in found if not indent]
    return len(outer), sum(kind.endswith("Kernel") for _, kind, _ in found)


def in_a_row(listed: str) -> int:
    """Kernels on the longest path along the edges of the list."""
    depth: dict[str, int] = {}
    for number, before in re.findall(r"^ *(\d+): k\w*Kernel +\[(?:prev=(\d+))?", listed, re.M):
        depth[number] = 1 + depth.get(before, 0)
    return max(depth.values())


def figures(counted: Counted, options: Mapping[str, str], **of: Any) -> Mapping[str, float]:
    """A graph's kernels cost a graph's launches, others a stream's; and each its bytes."""
    listed = thunks(counted.kind, counted.size, tuple(options.items()), **of)
    calls, kernels = host_calls(listed)
    model = constants(counted.kind)
    bytes_each = 8 * float(np.prod(counted.size))
    launch = model["graph_launch"] if "kCommandBuffer" in listed else model["launch"]
    return {
        "host_calls": calls,
        "kernels": kernels,
        "kernels_in_a_row": in_a_row(listed),
        "modelled_ms": 1e3 * kernels * (launch + bytes_each / model["memory"]),
    }


def _variants(rows: Mapping[str, tuple[Mapping[str, str], Mapping[str, Any]]]) -> tuple[Variant, ...]:
    make = lambda options, of: (functools.partial(chain, **of), functools.partial(figures, options=options, **of), options)
    return tuple(Variant(name, *make(*row)) for name, row in rows.items())


GRAPHS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {"a stream": (OFF, {}), "a command buffer": (ON, {})}


def _case(name: str, size: tuple[int, ...], figure: str, rows: Any, chains: int = 1) -> Case:
    return Case(
        name=name,
        kind="xla",
        variants=_variants(rows),
        figure=figure,
        draw=lambda rng, *size: [normal(rng, *size)],
        reference=functools.partial(chain_reference, chains=chains),
        sizes={"check": (33,), "cuda": size},  # a CPU has neither streams nor graphs
    )


def picture(figure: Any, row: Mapping[str, Any]) -> None:
    """Modelled time of the chain over the size of its array."""
    axes = figure.subplots()
    sizes, model = [2**n for n in range(10, 27)], constants("nvidia-h200")
    for name, launch, kernels, colour in (
        ("in a stream", model["launch"], STEPS, "#D55E00"),
        ("in a CUDA graph", model["graph_launch"], STEPS, "#0072B2"),
        ("fused: one kernel", model["launch"], 1, "#7F7F7F"),
    ):
        axes.loglog(sizes, [1e6 * kernels * (launch + 8 * n / model["memory"]) for n in sizes], color=colour, label=name)
    axes.set_xlabel(f"elements of an array that takes {STEPS} elementwise steps", fontsize=9)
    axes.set_ylabel("microseconds, modelled for an H200", fontsize=9)
    axes.grid(color="#D9D9D9", linewidth=0.6)
    axes.legend(fontsize=9)


def answer() -> str:
    model = constants("nvidia-h200")
    return f"{model['launch'] * model['memory'] / 1e6:.0f} MB, reads and writes together: launch time multiplied by bandwidth."


TOPIC = Topic(
    name="launches",
    what="what a launch costs, streams, and CUDA graphs (XLA's command buffers)",
    text=__doc__ or "",
    kernel="`docs/recurrent.md` shows how XLA runs its loops over time, with and without graphs; the persistent kernels of "
    "`kernels/recurrent/triton.py` take all steps in one launch",
    picture=picture,
    exercise="How many bytes may a kernel transfer before that takes longer than its launch in a stream?",
    answer=answer,
    cases=(
        _case(f"{STEPS} small kernels", (4096,), "modelled_ms", GRAPHS),
        _case(f"{STEPS} large kernels", (2**26,), "modelled_ms", GRAPHS),
        _case("a graph, or one fusion", (4096,), "kernels", {"a command buffer": (ON, {}), "fused": (ON, {"fused": True})}),
        _case(
            "four chains that do not need each other",
            (4096,),
            "kernels_in_a_row",
            {"a stream": (OFF, {"chains": 4}), "a command buffer": (ON, {"chains": 4})},
            chains=4,
        ),
    ),
)
