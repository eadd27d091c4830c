"""Where this repository shows what a GPU tutorial teaches, section by section."""

from __future__ import annotations

from typing import Any

from experiments.guide import show
from experiments.guide.tables import rows_of

Record = dict[str, Any]
# A tutorial's section, the topic of the guide and the case that shows it.
SECTIONS = (
    ("CPU against GPU", "threads", "4,096 additions, XLA"),
    ("Grids, blocks, warps, threads", "threads", "a grid for all multiprocessors"),
    ("Synchronization and atomics", "threads", "a sum: the block agrees first"),
    ("Memory hierarchy: shared memory and tiles", "memory_hierarchy", "tiles of a product"),
    ("Memory hierarchy: caches", "memory_hierarchy", "slices that fit the cache"),
    ("Constant memory", "constant_memory", "eight coefficients for all threads"),
    ("Texture memory", "constant_memory", ""),
    ("Memory coalescing", "coalescing", "one field of sixteen"),
    ("Array of structures, structure of arrays", "coalescing", "all sixteen fields"),
    ("Bank conflicts and padding", "bank_conflicts", "a column, padded rows"),
    ("Swizzles", "bank_conflicts", "a column, padding or swizzle"),
    ("Occupancy", "occupancy", "loads of one thread"),
    ("Registers and spills", "registers", "a cap that spills"),
    ("Kernel fusion", "fusion", "operation by operation, XLA"),
    ("Block size", "block_size", "elementwise"),
    ("Warp divergence", "divergence", "within a warp: threads agree, 16 steps"),
    ("Predication", "divergence", "within a warp: one step, predicated"),
    ("Loop unrolling", "unrolling", "a length known when it runs"),
    ("CUDA graphs and launch cost", "launches", "32 small kernels"),
    ("Streams", "launches", "four chains that do not need each other"),
    ("Asynchronous copies and prefetching", "asynchronous_execution", "stages of a product"),
    ("Asynchronous execution of host and device", "asynchronous_execution", "a hundred small steps"),
    ("Overlapping transfers with computation", "transfer_overlap", "ResNet-50, 256 images"),
    ("Sending fewer bytes", "transfer_overlap", "bytes in place of floats"),
    ("Pinned memory", "memory_use", "from pinned memory"),
    ("Reusing memory (donation)", "memory_use", "the state of a step"),
    ("Mixed precision and tensor cores", "precision", "a large product"),
)


def table(gpu: Record, cpu: Record | None) -> tuple[list[str], list[list[str]]]:
    """Of each section the lesson, its file, its case, and what the result files say of it."""
    lines = []
    for section, topic, case in SECTIONS:
        lesson = f"[{topic.replace('_', ' ')}](guide.md#{topic.replace('_', '-')})"
        lines.append([section, lesson, f"`experiments/guide/{topic}.py`", case, said(topic, case, gpu, cpu)])
    return ["section", "lesson", "file", "case", "figure here"], lines


def said(topic: str, name: str, gpu: Record, cpu: Record | None) -> str:
    """The verdict of a case and how it was obtained: on the GPU's side, else on the CPU's."""
    if not name:
        return "not accessible from JAX or Triton; the lesson says why"
    for record in (gpu, cpu):
        for case in rows_of(record).get(topic, {"cases": []})["cases"]:
            for how, sentence in case["verdicts"].items() if case["name"] == name else ():
                if sentence is not None and record is not None:
                    return f"{sentence} ({show.obtained(record, how, case['figure'])})"
    return "only timing on a GPU can tell"
