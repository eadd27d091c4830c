"""Runs a command that reports in lines of JSON, and kills it if it hangs: a faulty GPU kernel can crash the process it runs in,
or never return."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class End:
    """How a process ended: `verdict` is None where its status was 0, else "timed out", "crashed" or "failed"."""

    verdict: str | None
    reason: str = ""


def worker(*arguments: str) -> list[str]:
    """The command of kernels.commands.worker."""
    return [sys.executable, "-m", "kernels.commands.worker", *arguments]


def run(command: Sequence[str], limit: float, on_line: Callable[[dict[str, Any]], None]) -> End:
    """Run a command and hand on each line of JSON that it prints, as it comes; other lines are passed over.

    Args:
      limit: seconds without a line after which it is killed, with all processes that it has started.
    """
    # Each takes what memory it needs: the next one must find the device empty.
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "2"} | dict(os.environ)
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            list(command), stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True, env=environment
        )
        lines: queue.Queue[str | None] = queue.Queue()

        def read() -> None:
            assert process.stdout is not None
            with process.stdout as stream:
                for line in stream:
                    lines.put(line)
            lines.put(None)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            while (line := lines.get(timeout=limit)) is not None:
                with contextlib.suppress(json.JSONDecodeError):
                    if isinstance(content := json.loads(line), dict):
                        on_line(content)
            process.wait(timeout=limit)
        except (queue.Empty, subprocess.TimeoutExpired):
            return End("timed out", f"nothing heard for {limit:g} s")
        finally:
            _kill(process)
            reader.join(timeout=10)
        errors.seek(0)
        return _end(process.returncode, errors.read())


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):  # one that waits for a driver cannot be killed
        process.wait(timeout=10)


def _end(status: int, errors: str) -> End:
    if status == 0:
        return End(None)
    said = [line.strip() for line in errors.splitlines() if line.strip()]
    raised = [line for line in said if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)]  # JAX adds lines after it
    last = (raised or said or [""])[-1]
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        return End("crashed", f"{name}{': ' * bool(last)}{last}")
    return End("failed", last or f"status {status}")
