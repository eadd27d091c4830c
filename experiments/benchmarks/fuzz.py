"""Mutated files for every reader of what comes from strangers: python -m experiments.benchmarks.fuzz [READER ...] [--inputs N].

A reader takes a file or refuses it, with an error of one line that names the file. Anything else is a finding: another error, a
crash, more memory than is allowed (a limit on the address space makes it an error), or too much time. The inputs follow from
--seed alone; they are read in processes of their own, so that a crash ends one of these. Findings are kept in runs/fuzz/.
Writes experiments/results/cpu/fuzz.json, where only some readers are asked for completing what is there.
"""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import pathlib
import random
import re
import resource
import signal
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from experiments.benchmarks.fuzz_inputs import READERS, mutated, samples
from experiments.errors import UserError, nearest, run
from experiments.flags import SEED, Parser, whole
from experiments.measuring import result

MEMORY = 2**31  # bytes, beyond what the process has when it begins
SECONDS = 20  # for one input
BATCH = 20_000  # inputs of a process
KEPT = pathlib.Path("runs", "fuzz")
Input = tuple[str, int, int]  # reader, seed, number


class TooLongError(BaseException):
    """Not an Exception, which a reader might take for damage."""


def content_of(name: str, seed: int, number: int) -> bytes:
    """An input by its number."""
    return mutated(name, random.Random(f"{name} {seed} {number}"))


def outcome(name: str, path: pathlib.Path) -> str:
    """What a reader does with a file: "taken", "refused", or what is wrong."""
    reader = READERS[name]
    signal.alarm(SECONDS)
    try:
        reader.read(path)
    except reader.refusals as error:
        message = str(error)
        if "\n" in message or not (str(path) in message or str(path.parent) in message):
            return f"not one line that names the file: {message[:80]!r}"
        return "refused"
    except TooLongError:
        return f"longer than {SECONDS} s"
    except BaseException as error:  # whatever it is, it is a finding
        return f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
    finally:
        signal.alarm(0)
    return "taken"


def _stop(*_: Any) -> None:
    raise TooLongError


def work(inputs: Sequence[Input], said: Connection) -> None:
    """Read the inputs in this process, within the limits; says before each that it begins, and then its outcome."""
    signal.signal(signal.SIGALRM, _stop)
    with tempfile.TemporaryDirectory() as folder:
        for name in {name for name, _, _ in inputs}:  # what a reader imports, compiles or keeps is not the file's doing
            sound = samples(name)[0].whole()
            if (found := outcome(name, _written(folder, name, sound))) != "taken":
                raise RuntimeError(f"{name}: a sound file gives {found}")
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for name, seed, number in inputs:
            path = _written(folder, name, content_of(name, seed, number))
            said.send(None)
            said.send(outcome(name, path))


def _written(folder: str, name: str, content: bytes) -> pathlib.Path:
    path = pathlib.Path(folder, re.sub(r"\W+", "-", name), READERS[name].file)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def outcomes(inputs: Sequence[Input]) -> list[str]:
    """What came of each input. Where a process dies, another one goes on behind the input that it died of."""
    context = multiprocessing.get_context("spawn")
    found: list[str] = []
    while len(found) < len(inputs):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(inputs[len(found) :], theirs))
        process.start()
        theirs.close()
        begun, silent = False, False
        with contextlib.suppress(EOFError):
            while not (silent := begun and not ours.poll(3 * SECONDS)):
                said = ours.recv()
                begun = said is None
                if said is not None:
                    found.append(said)
        if silent:
            process.kill()
        process.join()
        if begun:
            found.append(f"longer than {3 * SECONDS} s" if silent else f"crash, status {process.exitcode}")
        elif process.exitcode:
            raise RuntimeError(f"the process of the readers ended with status {process.exitcode} at input {len(found)}")
    return found


def main(arguments: list[str]) -> int:
    parser = Parser("experiments.benchmarks.fuzz", __doc__, "mnist --inputs 10000 --seed 1")
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"all, or some of {', '.join(map(repr, READERS))}")
    parser.add_argument("--inputs", type=whole(1), default=1000, help="for each reader (%(default)s)")
    parser.add_argument("--seed", type=SEED, default=0, help="another seed is other inputs (%(default)s)")
    given = parser.parse_args(arguments)
    for name in given.readers:
        if name not in READERS:
            raise UserError(nearest("READER", name, READERS))
    names = given.readers or list(READERS)
    inputs = [(name, given.seed, number) for name in names for number in range(given.inputs)]
    said: list[str] = []
    while len(said) < len(inputs):
        said += outcomes(inputs[len(said) : len(said) + BATCH])
        print(f"{len(said):,} of {len(inputs):,} inputs", flush=True)
    found = result.kept("fuzz", "readers")
    for place, name in enumerate(names):
        of = said[place * given.inputs : (place + 1) * given.inputs]
        counts = collections.Counter(of)
        figures = {what: counts.pop(what, 0) for what in ("taken", "refused")}
        found[name] = {"inputs": given.inputs, "seed": given.seed, **figures, "findings": dict(sorted(counts.items()))}
        for what in counts:  # keep one input of each kind
            KEPT.mkdir(parents=True, exist_ok=True)
            number = of.index(what)
            (KEPT / f"{given.seed}-{number}-{READERS[name].file}").write_bytes(content_of(name, given.seed, number))
        print(name, found[name])
    protocol = f"one to four changes to a sound file; {MEMORY // 2**20} MiB beyond the process's own, {SECONDS} s an input"
    print(result.save("fuzz", {"protocol": protocol, "readers": {name: found[name] for name in READERS if name in found}}))
    return 1 if any(found[name]["findings"] for name in names) else 0


if __name__ == "__main__":
    sys.exit(run(main))
