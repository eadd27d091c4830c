"""docs/gpus.md: what the kernels are on each GPU, from the result files gpu-compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from experiments.measuring.tables import Table, markdown, where
from kernels.runtime import gpus

Found = dict[str, Any]
HEAD = """# The kernels on each GPU

What Triton and XLA compile for eleven GPUs, and what `implementation=None` chooses on each. The kernels have not run on any
of them: all figures are counted in compiled programs, forward and backward, in bfloat16; nothing was measured.
`python -m experiments.comparison.gpus` writes the result files, `python -m experiments.report` this page.

At run time JAX describes the GPU (`kernels.device()`). To compile for a GPU that is not present, `kernels.target(NAME)`,
`python -m experiments.inspect MODEL --device NAME` and `python -m experiments.comparison.compiled operators --device NAME` take
the names below, whose properties are in `kernels/runtime/gpus.py`.

"""
CHOICE = """## What is chosen

A kernel with a barrier across its grid (batch_norm_act, rnn, lstm, gru) is chosen by default only after
`python -m kernels check` has passed on that GPU, or `python -m kernels tune` has found it fastest; until then XLA's code runs.
For all other operators the hand-written kernel is chosen from the start. The table assumes that the check has passed. Each cell
is the bytes of XLA's program divided by those of the hand-written kernels: above 1, the kernels transfer less. Batch norm is
*resident* where slices of channels stay in the L2 cache between their two readings, forward, backward or both; elsewhere it
*streams*, and has little to gain.

"""
TAKEN = """## Registers and shared memory

Registers per thread and shared memory per block in KB, of the forward and of the backward kernel; **bold** where registers are
spilled to memory.

"""
TRAINED = """## A training step

XLA's code alone and with the hand-written kernels, as chosen after the check (`lstm_lm`: the persistent kernels), at the batch
sizes of docs/comparison.md. The time is modelled: bytes at nine tenths of the data sheet's bandwidth, products at the data
sheet's rate, 2 µs a launch. When these steps were compiled, the loss still converted its labels in a kernel of its own: one
more than docs/comparison.md counts.

"""


def _rows(records: dict[str, Found], what: str) -> dict[str, dict[str, Found]]:
    """{name of the part: {GPU: its row}} of the parts whose name begins with `what`, in the order of the first record."""
    found: dict[str, dict[str, Found]] = {}
    for gpu, record in records.items():
        for row in record["rows"]:
            if row["name"].startswith("train ") == (what == "train"):
                found.setdefault(row["name"], {})[gpu] = row
    return found


def devices() -> Table:
    header = ["name", "JAX's name", ">compute capability", ">multiprocessors", ">L2, MB", ">memory, GB/s", "source"]
    rows = [
        [
            f"`{name}`",
            gpu.jax_name,
            ".".join(map(str, gpu.compute_capability)),
            str(gpu.cores),
            f"{gpu.l2_cache / 2**20:.0f}",
            f"{gpu.bandwidth / 1e9:,.0f}",
            gpu.source,
        ]
        for name, gpu in gpus.GPUS.items()
    ]
    return header, rows


def _choice(row: Found) -> str:
    if row["refused"] is not None:
        return "xla"
    ratio = f"{row['xla']['bytes'] / row['ours']['bytes']:.2f}"
    if row["resident"] is None:
        return ratio
    passes = [name for name, here in (("forward", row["resident"]), ("backward", row["resident_backward"])) if here]
    return f"{ratio} {'resident' if len(passes) == 2 else passes[0] + ' resident' if passes else 'streams'}"


def by_gpu(records: dict[str, Found], cell: Callable[[Found], str]) -> Table:
    """Header and rows: an operator a row, a GPU a column."""
    rows = [[name, *(cell(of[gpu]) if gpu in of else "" for gpu in records)] for name, of in _rows(records, "").items()]
    return ["operator", *(f">{gpu}" for gpu in records)], rows


def refusals(records: dict[str, Found]) -> list[str]:
    return [
        f"- {name} on {gpu}: {row['refused']}\n"
        for name, of in _rows(records, "").items()
        for gpu, row in of.items()
        if row["refused"] is not None
    ]


def _taken(row: Found) -> str:
    cells = []
    for kernel in row["launches"]:
        text = f"{kernel['registers']}, {kernel['shared_memory'] / 1024:.0f}"
        cells.append(f"**{text}**" if kernel["spilled"] else text)
    return " / ".join(cells)


def training(records: dict[str, Found]) -> Table:
    header = ["step", "GPU", ">kernels, XLA", ">ours", ">GB, XLA", ">ours", ">modelled ms, XLA", ">ours"]
    rows = []
    for name, of in _rows(records, "train").items():
        for gpu, row in of.items():
            xla = row["contenders"]["xla"]
            ours = row["contenders"]["triton" if "triton" in row["contenders"] else "zoo"]
            cells = []
            for field, form, scale in (("kernels", ",.0f", 1), ("bytes", ",.1f", 1e9), ("modelled_seconds", ",.1f", 1e-3)):
                cells += [f"{of_[field] / scale:{form}}" if field in of_ else of_["failed"] for of_ in (xla, ours)]
            rows.append([f"`{name.removeprefix('train ')}`, {row['examples']}", gpu, *cells])
    return header, rows


def page(records: dict[str, Found]) -> str:
    """The page; `records` by the names of `kernels.runtime.gpus`."""
    first = next(iter(records.values()))
    refused = refusals(records)
    return "".join(
        [
            HEAD,
            markdown(*devices()),
            "\n" + CHOICE,
            markdown(*by_gpu(records, _choice)),
            "\nRefused, so XLA's code runs:\n\n" if refused else "",
            *refused,
            "\n" + TAKEN,
            markdown(*by_gpu(records, _taken)),
            "\n" + TRAINED,
            markdown(*training(records)),
            "\n" + where(first | {"device": "all eleven GPUs"}),
        ]
    )
