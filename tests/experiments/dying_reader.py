"""Stands in for `fuzz.work`, in a module of its own that a new process imports at once."""

from __future__ import annotations

import os
import signal
import time
from typing import Any


def work(inputs: list[tuple[str, int, int]], said: Any) -> None:
    """Of the second input it dies, and the fourth never ends."""
    for _, _, number in inputs:
        said.send(None)
        if number == 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(60 * (number == 3))
        said.send("taken")
