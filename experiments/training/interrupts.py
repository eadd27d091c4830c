"""Signals that end a run: it is saved first. One of several processes that gets one takes the others along, at one step."""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
import time
from typing import Any

import jax

from experiments.training import processes

POLL_SECONDS = 0.5
_numbers = itertools.count()  # of runs in this process, a GAN's judge among them: the same in all processes


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
        self._agreement = Agreement(self) if processes.count() > 1 else None

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            if signal.getsignal(number) != signal.SIG_IGN:
                self._old[number] = signal.signal(number, self._note)
        return self

    def reached(self) -> int | None:
        """The signal to stop for, to be asked for after every call of the step; all processes get it after the same one."""
        return self._agreement.reached() if self._agreement else self.received

    def _note(self, number: int, _frame: Any) -> None:
        self.received = number
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    def __exit__(self, *_: Any) -> None:
        if self._agreement:
            self._agreement.close()
        for number, handler in self._old.items():
            signal.signal(number, handler)


class Agreement:
    """After which call of the step all processes stop, once one of them got a signal.

    A process may be calls ahead of another, and each waits for the others within a step, so none may wait between steps for a
    word of another's loop. Hence a thread in each process says how far its loop is, holds the loop there until it has heard of
    all the others, and lets it go on to the call after the last one that any has made.
    """

    def __init__(self, interrupts: Interrupts):
        self._interrupts = interrupts
        self._client, self._prefix = processes.client(), f"zoo/stop/{next(_numbers)}/"
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._calls, self._said = 0, False
        self._stop: tuple[int, int] | None = None  # call, signal
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def reached(self) -> int | None:
        with self._lock:
            self._calls += 1
            return self._stop[1] if self._stop and self._calls >= self._stop[0] else None

    def close(self) -> None:
        """The loop ends: no process waits for this one any more."""
        self._closed.set()
        with self._lock, contextlib.suppress(Exception):
            self._say()
        self._thread.join(2 * POLL_SECONDS)

    def _watch(self) -> None:
        with contextlib.suppress(Exception):  # the coordinator is gone, which its heartbeats tell
            while not self._closed.wait(POLL_SECONDS):
                if self._interrupts.received:
                    with contextlib.suppress(Exception):  # another was the first to tell
                        self._client.key_value_set(f"{self._prefix}signal", str(self._interrupts.received))
                if f"{self._prefix}signal" in self._known():
                    return self._agree()

    def _agree(self) -> None:
        with self._lock:
            self._say()
            calls: list[int] = []
            while len(calls) < jax.process_count():
                time.sleep(0.05)
                known = self._known()
                calls = [int(value) for key, value in known.items() if key.startswith(f"{self._prefix}at/")]
            self._stop = max(calls) + 1, int(known[f"{self._prefix}signal"])

    def _say(self) -> None:
        if not self._said:
            self._said = True
            self._client.key_value_set(f"{self._prefix}at/{jax.process_index()}", str(self._calls))

    def _known(self) -> dict[str, str]:
        return dict(self._client.key_value_dir_get(self._prefix))
