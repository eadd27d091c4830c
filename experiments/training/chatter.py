"""What C++ libraries write to a process's output, kept apart from what Python prints."""

from __future__ import annotations

import os
import re
import sys
import threading

# How absl's log begins: a line after which the process aborts, one of the coordinator's, any.
FATAL = re.compile(rb"F\d{4} ")
COORDINATION = re.compile(rb"[IWE]\d{4} [^\]]*coordination")
LOGGED = re.compile(rb"[IWE]\d{4} ")


class Chatter:
    """From now on Python's streams are the process's own, and C++ writes elsewhere.

    Standard output is dropped: gloo tells there whom it is connected to. Standard error is passed on line by line, without what
    the coordinator's client logs, up to the line with which absl announces an abort; that, and the stack after it, is kept.

    Attributes:
      stderr: file descriptor of the process's standard error.
    """

    def __init__(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        stdout, self.stderr = os.dup(1), os.dup(2)
        sys.stdout = os.fdopen(stdout, "w", buffering=1, encoding=sys.stdout.encoding, errors=sys.stdout.errors)
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        reading, writing = os.pipe()
        os.dup2(writing, 2)
        os.close(writing)
        self._fatal: list[bytes] = []
        threading.Thread(target=self._pass_on, args=(reading,), daemon=True).start()

    def _pass_on(self, reading: int) -> None:
        dropped = False
        with os.fdopen(reading, "rb") as lines:
            for line in lines:
                if self._fatal or FATAL.match(line):
                    self._fatal.append(line)
                    continue
                if LOGGED.match(line):  # other lines go on with the one before
                    dropped = bool(COORDINATION.match(line))
                if not dropped:
                    os.write(self.stderr, line)

    def fatal(self) -> str:
        """The announcement of an abort and its stack; empty if there was none."""
        return b"".join(self._fatal).decode(errors="replace")
