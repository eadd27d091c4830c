"""One self-contained page: the verdict in sentences, then tables and charts per device, drawn by the page's own script."""

from __future__ import annotations

import html
import json
import pathlib
import re
from typing import Any

from experiments.comparison import conclusions
from experiments.measuring.result import RESULTS, read
from experiments.pages import executed
from experiments.pages.html import sections
from kernels.runtime import gpus

HERE = pathlib.Path(__file__).parent
COMPARED = ("compare-operators", "compare-models")
COMPILED = ("compiled-operators", "compiled-models")
Found = dict[str, Any]
HOW = {
    "measured": ("Measured", "timed on the device named"),
    "compiled": ("Compiled", "counted in programs that were not run"),
    "modelled": ("Modelled", "times computed from those counts by a formula"),
    "executed": ("Executed", "compiled kernels run instruction by instruction on a CPU: shows correctness, not speed"),
}
LINK = re.compile(r" \(\[.*?\]\(.*?\)\)")  # to a page of docs/, which does not travel with this one
NO_GPU = "Nothing has been timed on a GPU yet: all GPU figures below are compiled or modelled."


def _found(folder: pathlib.Path, *names: str) -> list[Found]:
    return [read(path) for name in names if (path := folder / f"{name}.json").exists()]


def label(kind: str) -> str:
    """A device's name on its tab."""
    known = {gpu.kind: name for name, gpu in gpus.GPUS.items()}
    return (
        known[kind].replace("rtx-", "RTX ").upper().replace("-80GB", " 80 GB").replace("-40GB", " 40 GB")
        if kind in known
        else kind
    )


def devices(results: pathlib.Path = RESULTS) -> list[dict[str, Any]]:
    """What each tab shows: devices with most kinds of figures first; a device without any is left out."""
    tabs = []
    for folder in sorted(path for path in results.iterdir() if path.is_dir()):
        measured, compiled = _found(folder, *COMPARED), _found(folder, *COMPILED)
        found = [sections.measured(measured)] if measured else []
        found += [sections.counted(compiled), sections.modelled(compiled)] if compiled else []
        for record in _found(folder, "gpu-compiled"):
            found += [] if compiled else [sections.choices(record)]
            found.append(sections.launches(record))
        ptx = [read(path) for path in sorted(folder.glob("sm_*.json"))]
        found += [sections.executed_operators(ptx)] if ptx else []
        if found:
            name = "PTX on a CPU" if ptx else "CPU" if folder.name == "cpu" else label(folder.name)
            tabs.append({"id": folder.name, "name": name, "sections": found})
    order = lambda tab: (
        tab["id"] == "ptx",
        -len({section["how"] for section in tab["sections"]}),
        tab["id"] != "cpu",
        tab["id"],
    )
    return sorted(tabs, key=order)


def verdicts(results: pathlib.Path = RESULTS) -> dict[str, list[tuple[str, list[str]]]]:
    """Who won, by how it was obtained: pairs of what the sentences are about, and the sentences."""
    said: dict[str, list[tuple[str, list[str]]]] = {how: [] for how in HOW}
    timed = []
    for folder in sorted(path for path in results.iterdir() if path.is_dir()):
        for record in _found(folder, *COMPARED):
            timed.append(folder.name)
            said["measured"].append((f"{_what(record)}, {record['device']}", conclusions.measured(record)))
        for record in _found(folder, *COMPILED):
            said["compiled"].append((f"{_what(record)}, {label(folder.name)}", conclusions.counted(record)))
            said["modelled"].append((f"{_what(record)}, {label(folder.name)}", conclusions.modelled(record)))
    if not set(timed) - {"cpu"}:
        said["measured"].insert(0, ("GPUs", [NO_GPU]))
    ptx = results / "ptx"
    records = [read(path) for path in sorted(ptx.glob("sm_*.json"))] if ptx.is_dir() else []
    if records:
        faults = [read(path) for path in sorted(ptx.glob("faults-*.json"))]
        said["executed"].append(("Hand-written kernels", LINK.sub("", executed.sentence(records, faults)).splitlines()))
    return {how: parts for how, parts in said.items() if any(sentences for _, sentences in parts)}


def _what(record: Found) -> str:
    return record["experiment"].removeprefix("compiled-").capitalize()


def _verdict(how: str, parts: list[tuple[str, list[str]]]) -> str:
    name, means = HOW[how]
    said = ""
    for about, (first, *others) in ((about, sentences) for about, sentences in parts if sentences):
        said += f"<h4>{html.escape(about)}</h4><p><strong>{html.escape(first)}</strong></p>"
        said += "".join(f"<p>{html.escape(sentence)}</p>" for sentence in others)
    return f'<section class="verdict {how}"><h3>{name} <small>{means}</small></h3>{said}</section>'


def page(results: pathlib.Path = RESULTS) -> str:
    """The whole page; nothing is loaded from elsewhere."""
    data = json.dumps({"how": {how: name for how, (name, _) in HOW.items()}, "devices": devices(results)}, allow_nan=False)
    parts = {
        "style": (HERE / "style.css").read_text(),
        "verdict": "".join(_verdict(how, said) for how, said in verdicts(results).items()),
        "data": data.replace("<", "\\u003c"),  # so that no text of a result file ends the script
        "script": (HERE / "charts.js").read_text() + (HERE / "tables.js").read_text(),
    }
    text = (HERE / "template.html").read_text()
    for name, content in parts.items():
        text = text.replace(f"<!-- {name} -->", content, 1)
    return text
