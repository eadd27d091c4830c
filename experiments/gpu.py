"""Runs everything that a new GPU needs, in order; `make gpu` calls it: python -m experiments.gpu [PART ...].

First the check of the kernels, then the tests that need a GPU, tuning, the comparisons and the guide. A part that fails does
not stop the others. experiments/results/KIND/gpu.md summarizes the findings; the results of check and tuning go to
kernels/tuned/, which ships with the package. Tuning, comparisons and guide skip what they have done before with the same
sources, so the same command resumes where the last one stopped.
"""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from experiments.errors import UserError, nearest, run
from experiments.flags import Parser
from experiments.measuring import resume
from experiments.measuring.tables import markdown
from kernels.commands import check
from kernels.commands.dtypes import DTYPES

ROOT = pathlib.Path(__file__).parents[1]
TUNED = ROOT / "kernels" / "tuned"
RESULTS = ROOT / "experiments" / "results"
QUIET_PYTEST = ("-o", "addopts=", "-W", "ignore::pytest.PytestConfigWarning")


class Part(NamedTuple):
    """A command of this Python."""

    name: str
    arguments: tuple[str, ...]


class Done(NamedTuple):
    """A part that was run: its exit status, how long it took and the last line that it printed."""

    part: Part
    status: int
    seconds: float
    last: str


def parts(peers: str, minutes: float) -> dict[str, Part]:
    limit = ("--minutes", f"{minutes:g}")
    commands = {
        "check": ("-m", "kernels", "check"),
        "test": ("-m", "pytest", *QUIET_PYTEST, "-m", "gpu", "tests/kernels"),
        "tune": ("-m", "kernels", "tune", *limit),
        "compare-operators": ("-m", "experiments.compare", *limit, "--peers", f"{peers},flax".strip(","), "operators"),
        "compare-models": ("-m", "experiments.compare", *limit, "--peers", peers, "models"),
        "guide": ("-m", "experiments.guide", "all", *limit),
    }
    return {name: Part(name, arguments) for name, arguments in commands.items()}


def perform(part: Part) -> Done:
    """Run a part; what it prints is shown, and its last line kept."""
    begun, last = time.monotonic(), ""
    environment = os.environ | {"JAX_KERNEL_ZOO_CACHE": str(TUNED), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, *part.arguments]
    print(f"\n== {part.name}: python {' '.join(part.arguments)}", flush=True)
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
    return Done(part, process.returncode, time.monotonic() - begun, last)


def page(found: check.Description, done: Sequence[Done], tuned: dict[str, Any]) -> str:
    """What was found, in Markdown."""
    device = found.device
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    head = (
        f"{device.cores} multiprocessors, {device.l2_cache / 2**20:g} MiB of L2 cache, compute capability "
        f"{'.'.join(map(str, device.compute_capability))}; {versions}; {datetime.date.today().isoformat()}."
    )
    parts = [[d.part.name, str(d.status or "ok"), f"{d.seconds:.0f}", _cell(d.last)] for d in done]
    checked, fastest = [], []
    for operator, entries in sorted(tuned.get("checked", {}).items()):
        for name, entry in sorted(entries.items()):
            errors = [f"{entry['worst'][dtype]:.1e}" if dtype in entry["worst"] else "" for dtype in DTYPES]
            checked.append([operator, name, *errors, _cell(": ".join(filter(None, (entry["verdict"], entry["reason"]))))])
    for operator, entries in sorted(tuned.get("operators", {}).items()):
        for key, entry in sorted(entries.items()):
            if "implementation" in entry:
                first, *others = sorted(entry["seconds"].values())
                fastest.append([operator, key, entry["implementation"], f"{others[0] / first:.2f}" if others else ""])
    return (
        f"# What was found on {device.kind}\n\n{head}\n\n"
        + markdown(["part", "status", ">seconds", "its last line"], parts)
        + "\n## Kernels against float64\n\n"
        + markdown(["operator", "implementation", *(f">{dtype}" for dtype in DTYPES), "verdict"], checked)
        + "\n## The fastest of each operator\n\n"
        + markdown(["operator", "shapes", "fastest", ">speedup over the next"], fastest)
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(arguments: list[str]) -> int:
    parser = Parser("experiments.gpu", __doc__, "check tune --minutes 5")
    names = list(parts("", 0))
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"all, or some of {', '.join(names)}")
    parser.add_argument("--peers", default="torch,torch.compile", help="peers that the comparisons include")
    parser.add_argument("--minutes", type=float, default=9.0, help="time limit per part (%(default)g)")
    given = parser.parse_args(arguments)
    for name in given.parts:
        if name not in names:
            raise UserError(nearest("PART", name, names))
    resume.deadline(given.minutes)  # or it raises: each part counts its own
    found = check.describe()
    if found.device.platform != "cuda":
        raise UserError(f"no GPU: JAX runs on {found.device.kind} here")
    chosen = [part for name, part in parts(given.peers, given.minutes).items() if not given.parts or name in given.parts]
    done: list[Done] = []
    path = RESULTS / found.device.kind / "gpu.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    for part in chosen:
        done.append(perform(part))
        file = TUNED / f"{found.device.kind}.json"
        path.write_text(page(found, done, json.loads(file.read_text()) if file.exists() else {}))
    print(f"\nwritten: {path}")
    return 1 if any(d.status for d in done) else 0


if __name__ == "__main__":
    sys.exit(run(main))
