"""What the console shows of a run: --log-level."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

from rich.console import Console

LEVELS = ("debug", "info", "warning", "error")


class Messages:
    """Lines of a level, shown where the run shows that level and those above.

    Attributes:
      console: for the bar and the tables, which are information.
    """

    def __init__(self, console: Console, level: str):
        self._console, self._least = console, LEVELS.index(level)
        self.console = console if self._least <= LEVELS.index("info") else Console(quiet=True)

    def debug(self, line: str) -> None:
        self._say("debug", line)

    def info(self, line: str) -> None:
        self._say("info", line)

    def warning(self, line: str) -> None:
        self._say("warning", f"warning: {line}")

    def _say(self, level: str, line: str) -> None:
        if LEVELS.index(level) >= self._least:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def of_libraries(level: str) -> Iterator[None]:
    """Within the block, what libraries warn of and log is on standard error at "debug", else nowhere."""
    root, shown = logging.getLogger(), logging.StreamHandler()
    shown.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    handler: logging.Handler = shown if level == "debug" else logging.NullHandler()
    with warnings.catch_warnings():
        warnings.simplefilter("default" if level == "debug" else "ignore")
        before = root.level
        root.addHandler(handler)
        logging.captureWarnings(level == "debug")
        root.setLevel(logging.INFO if level == "debug" else logging.CRITICAL)
        try:
            yield
        finally:
            logging.captureWarnings(False)
            root.removeHandler(handler)
            root.setLevel(before)
