"""Runs the programs of a grid at the same time, a thread for each, as a kernel with a barrier across its grid needs it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

# Seconds for all programs of a grid: longer means that a barrier never opened. Virtual machines have been seen to stand still
# for a minute.
TIMEOUT = 240


def run(program: Callable[[tuple[int, ...]], None], indices: Sequence[tuple[int, ...]], abandoned: threading.Event) -> None:
    """Run `program` with each index.

    Args:
      abandoned: set while programs that wait for others must end, because one has failed.

    Raises:
      TimeoutError: they did not end in time.
      Exception: what the first one to fail raised.
    """
    errors: list[BaseException] = []

    def guarded(index: tuple[int, ...]) -> None:
        try:
            with np.errstate(all="ignore"):
                program(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(index,), daemon=True) for index in indices]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + TIMEOUT
    for thread in threads:
        while thread.is_alive() and not errors:
            thread.join(0.05)  # and then see whether another one has failed
            if thread.is_alive() and not errors and time.monotonic() > deadline:
                errors.append(TimeoutError(f"a program did not end within {TIMEOUT} s: its barrier never opened"))
    if errors:
        abandoned.set()
        for thread in threads:
            thread.join()
        abandoned.clear()
        raise errors[0]
