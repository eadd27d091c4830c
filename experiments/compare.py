"""Compares the speed of XLA's code, the hand-written kernels and torch: python -m experiments.compare operators|models [flags].

Writes a result file (its fields: docs/results.md), a Markdown table and pictures to experiments/results/DEVICE/, with --quick
to runs/compare/, or to --out. Each contender's result is checked in the same run before it is timed. Cases that the result
file already holds from the same sources and options are not run again, so the same command resumes an interrupted run. Prints
a line per case with the fastest side, and at the end which side is faster and why. `--case MODULE:FUNCTION` compares your own
functions or shape instead; `--check OLD NEW` compares two result files and lists what became slower beyond the noise.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from typing import Any

import kernels
import zoo
from experiments.comparison import conclusions, functions, pictures, session, tables
from experiments.comparison.case import Case
from experiments.comparison.contenders import PEERS
from experiments.errors import UserError, nearest, run
from experiments.flags import Parser, whole
from experiments.measuring import clock, result, resume

QUICK = pathlib.Path("runs") / "compare"


def parsed(arguments: list[str]) -> argparse.Namespace:
    """The parsed and checked flags."""
    parser = Parser("experiments.compare", __doc__, "operators --quick --peers torch")
    parser.add_argument("kind", nargs="?", choices=("operators", "models"))
    parser.add_argument("--only", default="", metavar="NAME", help="run the cases whose name contains this")
    parser.add_argument(
        "--peers", default="", metavar="NAMES", help=f"peers to compare with as well, separated by commas: {', '.join(PEERS)}"
    )
    parser.add_argument(
        "--precision", choices=tuple(clock.TOLERANCE), help="the default is bfloat16 on a GPU, float32 on a CPU"
    )
    parser.add_argument("--quick", action="store_true", help="fewer and smaller cases: under a minute on a CPU")
    parser.add_argument("--rounds", type=whole(1, 10_000), help="rounds of alternating contenders (9; 3 with --quick)")
    resume.add_minutes(parser)
    parser.add_argument("--out", type=pathlib.Path, help="folder for the results")
    parser.add_argument("--csv", type=pathlib.Path, metavar="FILE", help="also write a row per case and contender to this file")
    parser.add_argument("--case", metavar="MODULE:FUNCTION", help="compare your own functions or shape (docs/comparison.md)")
    parser.add_argument(
        "--check", nargs=2, type=pathlib.Path, metavar=("OLD", "NEW"), help="list what became slower between two result files"
    )
    options = parser.parse_args(arguments)
    if options.check is None and (options.kind is None) == (options.case is None):
        raise UserError("kind: operators or models is needed, or --case MODULE:FUNCTION in its place")
    options.peers = [peer for peer in options.peers.split(",") if peer]
    for peer in options.peers:
        if peer not in PEERS:
            raise UserError(nearest("--peers", peer, PEERS))
    options.deadline = resume.deadline(options.minutes)
    return options


def check(old: pathlib.Path, new: pathlib.Path) -> int:
    found = tables.regressions(*(result.read(path, "operators", "models") for path in (old, new)))
    print("\n".join(found) or "nothing became slower beyond the noise")
    return 1 if found else 0


def compiled_for_a_gpu(kind: str) -> dict[str, Any] | None:
    """The same cases as they were compiled for a GPU that need not be present; None where they were not."""
    path = result.RESULTS / "nvidia-h200" / f"compiled-{kind}.json"
    return result.read(path) if path.exists() else None


def own_case(given: argparse.Namespace, options: session.Options) -> int:
    """Compare what --case names, and print who won. The status is 1 where nothing ran."""
    made = functions.load(given.case)
    if isinstance(made, Case):
        row = session.run_case(made, options)
        record = session.begin(options) | {"cases": [row]}
        print(conclusions.line(row))
        print(conclusions.closing(record, None))
    else:
        limits = {"rounds": options.rounds, "block_seconds": options.block_seconds, "name": given.case}
        found = functions.compare(*made, **limits)
        record, row = found.record, found.case
        print(found)
    if given.csv is not None:
        conclusions.write_csv(record, given.csv)
        print(f"written: {given.csv}")
    return 0 if any("median" in figures for figures in row["contenders"].values()) else 1


def main(arguments: list[str]) -> int:
    given = parsed(arguments)
    if given.check is not None:
        return check(*given.check)
    # Torch shares a GPU with JAX, which would otherwise take three quarters of its memory when it starts.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.6")
    device = kernels.device()
    if device.platform not in session.DEFAULT_PRECISION:
        raise UserError(
            f"device: {device.platform} is not one of {', '.join(session.DEFAULT_PRECISION)}, where this can be timed"
        )
    options = session.Options(
        given.kind or "operators",
        given.quick,
        given.only,
        tuple(given.peers),
        given.precision,
        given.rounds or (3 if given.quick else 9),
        0.03 if given.quick else 0.2,
        given.deadline,
    )
    if given.case is not None:
        return own_case(given, options)
    folder = given.out or (QUICK if given.quick else result.RESULTS) / device.kind
    path = folder / f"compare-{given.kind}.json"

    tabled = lambda record: path.with_suffix(".md").write_text(tables.every_contender(record))
    found = session.compare(options, path, conclusions.line, tabled)
    pictures.draw_speedups(found, folder / f"compare-{given.kind}.png")
    pictures.draw_roofline(found, folder / f"roofline-{given.kind}.png")
    print(conclusions.closing(found, compiled_for_a_gpu(given.kind)))
    print(f"written: {path}")
    if given.csv is not None:
        conclusions.write_csv(found, given.csv)
        print(f"written: {given.csv}")
    return 0


if __name__ == "__main__":
    zoo.keep_freed_memory()
    sys.exit(run(main))
