"""Faults: what is done to a run, at which moment, and how its processes may end of it."""

from __future__ import annotations

import dataclasses
import random
import resource
import signal
import sys
import time
from collections.abc import Iterator

from experiments.soaking.cases import Case
from experiments.soaking.processes import LOST, Start

END_SECONDS = 90  # within which a run ends of a fault: the ten seconds of a lost heartbeat, on a machine that is busy
JOIN_SECONDS = 20  # that one of two waits for another which never came, before it is ended as a scheduler would
RUN_SECONDS = 600  # that a start may take which nobody disturbs
LATER_SECONDS = 1.0  # after a checkpoint, at most: about one to three checkpoints' time
STARTUP, STEP, SAVE, FINISH = "startup", "step", "save", "finish"
MOMENTS = (STARTUP, STEP, SAVE, FINISH)
RUNNING = (STEP, SAVE, FINISH)
SIGNALS = {
    "KILL": (signal.SIGKILL, {-9}),
    "TERM": (signal.SIGTERM, {143, -15}),  # saved, or before there was anything to save
    "INT": (signal.SIGINT, {130, -2}),
    "HUP": (signal.SIGHUP, {129, -1}),
}
# Kind of fault, and the moments it is for.
KINDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(SIGNALS, MOMENTS),
    "STOP, CONT": MOMENTS,
    "STOP, KILL": MOMENTS,
    "full disk": MOMENTS,
    "flipped byte": (STEP,),
    "second run": RUNNING,
    "evaluate": RUNNING,
}


@dataclasses.dataclass(frozen=True)
class Fault:
    """Attributes: kind: of `KINDS`. moment: of `MOMENTS`. victims: the processes it is done to."""

    kind: str
    moment: str
    victims: tuple[int, ...]


def plan(case: Case, seed: int) -> Iterator[Fault]:
    """Faults for a case without end: every kind once, in random order, then every kind again."""
    draw = random.Random(f"{seed} {case.name}")
    # Two trainers at a time are what two cores carry.
    kinds = [kind for kind in KINDS if case.processes == 1 or kind != "second run"]
    while True:
        for kind in draw.sample(kinds, len(kinds)):
            everybody = tuple(range(case.processes))
            victims = everybody if draw.random() < 0.3 else (draw.choice(everybody),)
            yield Fault(kind, draw.choice(KINDS[kind]), victims)


def reach(start: Start, fault: Fault, steps: int, startup: float, draw: random.Random) -> bool:
    """Wait for the fault's moment; False where the run ended before it, or hangs.

    Args:
      steps: of the whole run.
      startup: seconds that an undisturbed run takes to its first checkpoint.
    """
    if fault.moment == STARTUP or (fault.moment == FINISH and start.before == steps):
        # Python itself takes part of a second to start, and answers Ctrl-C with a traceback until our code runs.
        start.wait(RUN_SECONDS, start.imports)
        time.sleep(draw.uniform(0, max(1.0, startup)))
    elif fault.kind == "flipped byte":  # of the newest of two that this start has written, so that one whole remains
        if not start.wait(RUN_SECONDS, lambda: len([step for step in start.saved() if step > start.before]) > 1):
            return False
    elif fault.moment == FINISH:
        if not start.wait(RUN_SECONDS, lambda: start.newest() == steps):
            return False
        time.sleep(draw.uniform(0, 1.5 * LATER_SECONDS))
    else:
        if not start.wait(RUN_SECONDS, lambda: start.newest() > start.before):
            return False
        time.sleep(draw.uniform(0, LATER_SECONDS))
        if fault.moment == SAVE:
            start.wait(RUN_SECONDS, start.saving)
            time.sleep(draw.uniform(0, 0.05))
    return not start.ended


def inject(start: Start, fault: Fault, case: Case, label: str, draw: random.Random) -> tuple[bool, set[int], list[str]]:
    """Do it. Returns whether the run must end of it, further statuses it may end with, and what is wrong already."""
    victims = list(fault.victims)
    lost = {LOST} if case.processes > 1 else set()
    if fault.kind in SIGNALS:
        number, statuses = SIGNALS[fault.kind]
        start.send(number, victims)
        return True, statuses | lost, []
    if fault.kind == "STOP, CONT":
        start.send(signal.SIGSTOP, victims)
        time.sleep(draw.uniform(0.2, 4))
        start.send(signal.SIGCONT, victims)
        return False, lost, []
    if fault.kind == "STOP, KILL":
        start.send(signal.SIGSTOP, victims)
        time.sleep(draw.uniform(0.2, 15))
        start.send(signal.SIGKILL, victims)
        return True, {-9} | lost, []
    if fault.kind == "full disk":
        # A limit on the size of files, given to running processes, is met at their next large write; what they print goes on.
        printed = max(log.stat().st_size for log in start.logs)
        size = printed + draw.choice((4096, 32768, 262144))
        for index in victims:
            if start.processes[index].poll() is None:
                resource.prlimit(start.processes[index].pid, resource.RLIMIT_FSIZE, (size, size))
        return False, {2} | lost, []
    if fault.kind == "flipped byte":
        start.send(signal.SIGKILL, list(range(case.processes)))
        start.wait(END_SECONDS)
        flip_newest(start, draw)
        return True, {-9} | lost, []
    if fault.kind == "second run":
        return False, set(), _beside(start, case.commands(start.workdir), label, "another run is in")
    command = [sys.executable, "-m", "experiments.evaluate", str(start.workdir)]
    return False, set(), _beside(start, [command], label, "")


def _beside(start: Start, commands: list[list[str]], label: str, refusal: str) -> list[str]:
    """A command beside the run: refused in one line where there is a `refusal`, else done."""
    other = Start(commands, start.workdir, label)
    if not other.wait(RUN_SECONDS):
        other.kill()
        return [f"{label}: still there after {RUN_SECONDS} s"]
    output = other.output()
    refused = refusal and other.statuses == [2] and refusal in output and len(output.strip().splitlines()) == 1
    if refused or (other.statuses == [0] and (not refusal or start.ended)):
        return [f"{label}: {problem}" for problem in other.problems({0, 2})]
    return [f"{label}: status {other.statuses[0]}: {' '.join(other.tail(3))[:400]}"]


def flip_newest(start: Start, draw: random.Random) -> None:
    """Flip a bit of some byte in the newest checkpoint."""
    files = [p for p in sorted((start.workdir / "checkpoints" / str(start.newest())).rglob("*")) if p.is_file()]
    files = [path for path in files if path.stat().st_size]
    path = draw.choices(files, [path.stat().st_size for path in files])[0]
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)
