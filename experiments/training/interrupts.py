"""Signals that end a run: it is saved first."""

from __future__ import annotations

import signal
from typing import Any


class StoppedError(Exception):
    """SIGTERM, SIGHUP or Ctrl-C arrived, and the run was saved."""

    def __init__(self, signal_number: int, step: int):
        name = signal.Signals(signal_number).name
        super().__init__(f"stopped by {name} at step {step}, saved; the same command continues")
        self.signal_number = signal_number


class Interrupts:
    """SIGTERM, SIGHUP and SIGINT noted, not acted on, so that the loop can finish its step and save; a second one acts at once.

    One that is ignored, as nohup has SIGHUP, stays so.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            if signal.getsignal(number) != signal.SIG_IGN:
                self._old[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, _frame: Any) -> None:
        self.received = number
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
