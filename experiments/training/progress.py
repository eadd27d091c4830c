"""The live bar of a run, and the table at its end; plain lines where the output is not a terminal."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from experiments.measuring.names import printable
from kernels.runtime.sizes import cdiv


class ProgressBar:
    """Epoch, loss, accuracy, examples per second and time left."""

    def __init__(self, console: Console, steps: int, per_epoch: int, start: int):
        self._console, self._steps, self._per_epoch = console, steps, per_epoch
        self._epochs = cdiv(steps, per_epoch)
        self._text = "starting"
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(self._describe(start), total=steps, completed=start)
        self._line_due = time.monotonic() + 10

    def _describe(self, step: int) -> str:
        epoch = min(step // self._per_epoch + 1, self._epochs)
        return f"epoch {epoch}/{self._epochs}  {self._text}"

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def update(self, step: int, figures: dict[str, float]) -> None:
        """Show the training figures up to `step`."""
        self._text = shown(figures)
        self._bar.update(self._task, completed=step, description=self._describe(step))
        if not self._console.is_terminal and time.monotonic() > self._line_due:
            self._console.print(f"step {step}/{self._steps}  {self._describe(step)}", highlight=False, soft_wrap=True)
            self._line_due = time.monotonic() + 10

    def say(self, line: str) -> None:
        """Print a line that stays above the bar."""
        self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)


def shown(figures: dict[str, float]) -> str:
    """The training figures in a line: the first ones, norms, speed and what the step waits for and uses."""
    speed = ("examples_per_second", "learning_rate", "input_wait", "peak_memory_bytes", "peak_share")
    names = [name for name in figures if name not in speed and not name.endswith("gradient_norm")][:4]
    names += [name for name in figures if name.endswith("gradient_norm")]
    words = [f"{name.replace('_', ' ')} {figures[name]:.4g}" for name in names]
    words.append(f"{figures['examples_per_second']:,.0f} examples/s")
    words.append(f"input wait {figures['input_wait']:.1%}")
    if "peak_memory_bytes" in figures:
        words.append(f"{figures['peak_memory_bytes'] / 2**30:.2f} GiB")
    if "peak_share" in figures:
        words.append(f"{figures['peak_share']:.1%} of peak")
    return "  ".join(words)


def print_summary(console: Console, summary: dict[str, Any], title: str) -> None:
    """The table at the end of a run."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in summary.items():
        if name == "skipped":  # said in a line of its own
            continue
        if isinstance(value, float):
            text = f"{value:.2%}" if name.endswith(("accuracy", "input_wait", "peak_share")) else f"{value:,.4g}"
        else:
            text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
        table.add_row(name.replace("_", " "), Text(printable(text)))
    console.print(table)
