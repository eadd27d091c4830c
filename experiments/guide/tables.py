"""The tables of docs/guide.md from the guide's result files and those of the comparison."""

from __future__ import annotations

from typing import Any

from experiments.guide import show, verdict
from experiments.guide.topic import Topic
from experiments.measuring import device_model
from experiments.measuring import verdict as duels
from experiments.measuring.tables import markdown

Record = dict[str, Any]
# By topic: the cases of the compared operators in which this repository uses it, by the beginning of their names.
USED: dict[str, tuple[str, ...]] = {
    "memory_hierarchy": ("batch_norm_act ResNet-50 stage 2", "batch_norm_act ResNet-50 stage 1 end", "max_pool 3/2 AlexNet"),
    "coalescing": ("max_pool 2/2 VGG",),
    "fusion": ("lenet5 4096", "mlp GAN generator", "linear_act tall"),
    "block_size": ("linear_act AlexNet fc7 1024x4096 to 4096, forward",),
    "divergence": ("max_pool 3/1 GoogLeNet",),
    "asynchronous_execution": ("linear_act tall", "lstm public benchmark 10x512x128, 256 wide, 6 layers, forward"),
}


def rows_of(record: Record | None) -> dict[str, Record]:
    return {row["topic"]: row for row in record["topics"]} if record is not None else {}


def facts() -> tuple[list[str], list[list[str]]]:
    """What the time model of the H200 takes, with sources."""
    rows = [
        [name.replace("_", " "), f"{one.value:,g}", one.unit, one.source]
        for name, one in device_model.MODELS["nvidia-h200"].items()
    ]
    return ["constant", ">value", "unit", "source"], rows


def overview(topics: list[Topic], gpu: Record, cpu: Record | None) -> tuple[list[str], list[list[str]]]:
    """Header and rows: of each topic, where it pays and how much, and where not."""
    how = "measured" if gpu["measured"] else "compiled"
    on_gpu, on_cpu = rows_of(gpu), rows_of(cpu)

    def judged(cases: list[Record], how: str, pays: bool) -> str:
        found = []
        for case in cases:
            value = verdict.gain(case, how)
            text = case["verdicts"][how]
            if value is not None and text is not None and text.startswith("pays") == pays:
                found.append(f"{case['name']}: {verdict.short(case, how)}")
        return "; ".join(found)

    rows = []
    for topic in topics:
        link = f"[{topic.name.replace('_', ' ')}](#{topic.name.replace('_', '-')})"
        cases = on_gpu.get(topic.name, {"cases": []})["cases"]
        here = on_cpu.get(topic.name, {"cases": []})["cases"]
        cells = [judged(cases, how, True), judged(cases, how, False)]
        both = [
            f"{case['name']}: {verdict.short(case, 'measured')}" for case in here if verdict.gain(case, "measured") is not None
        ]
        rows.append([link, topic.what, *cells, "; ".join(both)])
    how = "measured" if gpu["measured"] else "compiled"
    header = ["topic", "what", f"pays: times better ({how}, H200)", f"no difference or slower: times better ({how}, H200)"]
    return [*header, "speedup (measured, CPU)"], rows


def used(topic: Topic, operators: Record | None, recurrent: Record | None) -> str:
    """Where this repository uses it, and its figure there."""
    text = f"**In this repository:** {topic.kernel}."
    figures = []
    for duel in duels.duels(operators) if operators is not None else []:
        if not any(duel.case["name"].startswith(start) for start in USED.get(topic.name, ())):
            continue
        if "forward + backward" in duel.case["name"] and duel.case["name"].replace(" + backward", "") in USED[topic.name]:
            continue
        parts = [f"speedup {duel.ratio():.2f}"]
        if "bytes" in duel.xla and "kernels" in duel.xla:
            parts = [
                f"kernels {duel.xla['kernels']:,} to {duel.hand['kernels']:,}",
                f"bytes, XLA / ours {duel.ratio('bytes'):.2f}",
            ]
        figures.append(f"{duels.full_name(duel.case)}: {', '.join(parts)}")
    how = "measured" if operators is not None and operators["measured"] else "compiled"
    if topic.name == "occupancy" and recurrent is not None:
        row = next(row for row in recurrent["shapes"] if row["hidden"] == 1024)["forward"]
        figures.append(
            f"LSTM with 1,024 units: {row['blocks']} blocks "
            f"where {row['resident_blocks']} fit at once, {row['registers']} registers per thread"
        )
    if topic.name == "unrolling" and recurrent is not None:
        steps = [f"{f['forward_kernels_per_step']:.1f} with unroll={turn}" for turn, f in recurrent["xla_unrolled"].items()]
        figures.append(f"kernels per step of XLA's LSTM: {', '.join(steps)}")
    return text + (f" Figures there ({how}): {'; '.join(figures)}." if figures else "") + "\n"


def cases(row: Record | None, record: Record | None) -> str:
    """The tables of a topic's cases in one file, each with its verdicts."""
    if row is None or record is None:
        return ""
    text = ""
    for case in row["cases"]:
        heads, lines = show.cells(case)
        text += markdown(heads, lines)
        for how, sentence in case["verdicts"].items():
            if sentence is not None:
                source = show.obtained(record, how, case["figure"])
                text += f"\n*{case['better']}* instead of *{case['baseline']}*: **{sentence}** ({source}).\n"
        text += "\n"
    return text


def topic_section(topic: Topic, gpu: Record, cpu: Record | None, operators: Record | None, recurrent: Record | None) -> str:
    """What a topic teaches, its cases, and where this repository uses it."""
    text = topic.text.strip() + "\n\n"
    if topic.picture is not None:
        text += f"![{topic.what}](images/guide-{topic.name}.png)\n\n"
    for record in (gpu, cpu):
        text += cases(rows_of(record).get(topic.name), record)
    text += used(topic, operators, recurrent)
    if topic.answer is not None:
        text += f"\n**Exercise.** {topic.exercise}\n\n**Answer.** {topic.answer()}\n"
    return text
