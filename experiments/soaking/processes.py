"""One start of a run's command: its processes, what they print, how they end."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable

LOST = 75  # experiments.training.processes.LOST, which is not imported since that takes JAX along
POLL_SECONDS = 0.005
# Whatever of these a run prints is a finding.
BAD = ("Traceback (most recent call last)", "Fatal Python error", "Check failure stack trace", "terminate called")
# Most of a short run is the compiler's time, which LLVM without its optimizations, and before JAX 0.11 another emitter, halve.
XLA_FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
_live: list[subprocess.Popen[bytes]] = []


def environment() -> dict[str, str]:
    old = importlib.metadata.version("jaxlib").startswith("0.10.")
    flags = XLA_FLAGS + (" --xla_cpu_use_fusion_emitters=false" if old else "")
    return os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", "XLA_FLAGS": flags}


class Start:
    """The processes of one start; each prints into a file beside the workdir."""

    def __init__(self, commands: list[list[str]], workdir: pathlib.Path, label: str):
        self.workdir, self.begun = workdir, time.monotonic()
        self.before = self.newest()
        self.logs = [workdir.with_name(f"{workdir.name}-{label}-{index}.log") for index in range(len(commands))]
        self.processes: list[subprocess.Popen[bytes]] = []
        for command, log in zip(commands, self.logs, strict=True):
            with log.open("wb") as file:
                # Their own session: Ctrl-C at the terminal is for the soak alone.
                process = subprocess.Popen(
                    command, env=environment(), stdout=file, stderr=subprocess.STDOUT, start_new_session=True
                )
            self.processes.append(process)
            _live.append(process)

    @property
    def ended(self) -> bool:
        return all(process.poll() is not None for process in self.processes)

    @property
    def statuses(self) -> list[int | None]:
        return [process.poll() for process in self.processes]

    def wait(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Wait until all have ended, or `until` holds; False where neither comes within so many seconds."""
        deadline = time.monotonic() + seconds
        while not self.ended and not (until and until()):
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def send(self, number: signal.Signals, victims: list[int]) -> None:
        for index in victims:
            if self.processes[index].poll() is None:
                self.processes[index].send_signal(number)

    def kill(self) -> None:
        for process in self.processes:
            _end(process)

    def saved(self) -> list[int]:
        """The steps of the checkpoints in the workdir."""
        return sorted(int(p.name) for p in (self.workdir / "checkpoints").glob("[0-9]*") if p.name.isdigit())

    def newest(self) -> int:
        return max(self.saved(), default=0)

    def imports(self) -> bool:
        """Whether all processes have come as far as to import JAX, which is the first that a trainer does."""
        maps = [pathlib.Path(f"/proc/{process.pid}/maps") for process in self.processes if process.poll() is None]
        with contextlib.suppress(OSError):
            return all("jaxlib" in path.read_text() for path in maps)
        return False

    def saving(self) -> bool:
        """Whether a checkpoint is half written."""
        return any((self.workdir / "checkpoints").glob("*tmp*"))

    def output(self) -> str:
        return "".join(log.read_text(errors="replace") for log in self.logs)

    def tail(self, lines: int = 12) -> list[str]:
        """The last lines of each process, without the names of folders on this machine."""
        here = f"{pathlib.Path.cwd()}/"
        shown: list[str] = []
        for log in self.logs:
            text = log.read_text(errors="replace").replace(here, "").replace(str(pathlib.Path.home()), "~")
            shown += [line[:300] for line in text.splitlines()[-lines:]]
        return shown

    def problems(self, allowed: set[int]) -> list[str]:
        """What is wrong with how the processes ended: a status that no fault explains, or a traceback."""
        found = [f"status {status}" for status in self.statuses if status is not None and status not in allowed]
        return found + [f"printed {sign!r}" for sign in BAD if sign in self.output()]


def sha256(workdir: pathlib.Path) -> str | None:
    """The digest of the parameters that a finished run says it has; None where it is not finished."""
    try:
        return str(json.loads((workdir / "summary.json").read_text())["parameters_sha256"])
    except (OSError, ValueError, KeyError):
        return None


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
    if process in _live:
        _live.remove(process)


def end_all() -> None:
    """Kill what is still running of all starts."""
    for process in list(_live):
        _end(process)
