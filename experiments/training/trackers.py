"""Where the figures of a run go beside metrics.jsonl: TensorBoard, and trackers of one's own."""

from __future__ import annotations

import os
import pathlib
import queue
import shutil
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from experiments import own
from experiments.errors import UserError, explain

METHODS = ("start", "log", "images", "finish")
MOST_WAITING = 1000  # records that a slow tracker may be behind
FINISH_SECONDS, STOP_SECONDS = 30.0, 5.0  # that the end of a run, or of a run interrupted, waits for them all together


class Tracker(Protocol):
    """What a tracker has to have; a class of one's own is made without arguments. Only the first of several processes has one.

    All methods of one's own are called in order in a thread of their own: they may take long, and may fail.
    """

    def start(self, config: dict[str, Any]) -> None:
        """A run begins or goes on: `recipe`, `versions`, `workdir`, and `step`, from which on figures may come again."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Figures by name, "train/loss" or "test/accuracy"."""

    def images(self, step: int, images: dict[str, pathlib.Path]) -> None:
        """PNG files by name."""

    def finish(self, summary: dict[str, Any] | None) -> None:
        """The run ended, with what its summary.json says; None where it was interrupted."""


class TensorBoard:
    """Event files in the run's workdir, written to at once: a writer with a thread of its own waits for ever on a full disk."""

    def __init__(self) -> None:
        _import_without_torch()
        self._events: Any = None

    def start(self, config: dict[str, Any]) -> None:
        self._folder, self._step = pathlib.Path(config["workdir"]) / "tensorboard", config["step"]
        if not self._step:
            shutil.rmtree(self._folder, ignore_errors=True)

    def log(self, step: int, values: dict[str, float]) -> None:
        from tensorboardX.summary import scalar

        for name, value in values.items():
            self._write(step, scalar(name, value))
        self._events.flush()

    def images(self, step: int, images: dict[str, pathlib.Path]) -> None:
        from PIL import Image
        from tensorboardX.proto.summary_pb2 import Summary

        for name, path in images.items():
            with Image.open(path) as picture:
                width, height, channels = *picture.size, len(picture.getbands())
            image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=path.read_bytes())
            self._write(step, Summary(value=[Summary.Value(tag=name, image=image)]))
        self._events.flush()

    def finish(self, summary: dict[str, Any] | None) -> None:
        if self._events is not None:
            self._events.close()

    def _write(self, step: int, summary: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        if self._events is None:
            self._events = self._open()
        self._events.write_event(Event(step=step, wall_time=time.time(), summary=summary))

    def _open(self) -> Any:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._folder.mkdir(exist_ok=True)
        events = EventsWriter(str(self._folder / "events"), f".{os.getpid()}")
        if self._step:  # what an earlier process wrote from here on does not count
            log = SessionLog(status=SessionLog.START)
            events.write_event(Event(step=self._step, wall_time=time.time(), session_log=log))
        return events


def _import_without_torch() -> None:
    """tensorboardX imports torch where that is installed, for graphs that are not written here; it takes seconds."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]  # and its import fails
    try:
        import tensorboardX.summary  # noqa: F401
    finally:
        if hidden:
            del sys.modules["torch"]


class Apart:
    """A tracker of one's own in a daemon thread, so that it can neither block the run nor end it.

    One that fails is left alone from then on; records that come while it is `MOST_WAITING` behind are dropped. Both are said
    once.
    """

    def __init__(self, name: str, make: Callable[[], Tracker], warn: Callable[[str], None]):
        self._name, self._make, self._warn = name, make, warn
        self._waiting: queue.Queue[tuple[str, tuple]] = queue.Queue(MOST_WAITING)
        self._dropped, self._done, self._failure = 0, threading.Event(), ""
        threading.Thread(target=self._work, name=f"tracker {name}", daemon=True).start()

    def start(self, config: dict[str, Any]) -> None:
        self._put("start", config)

    def log(self, step: int, values: dict[str, float]) -> None:
        self._put("log", step, values)

    def images(self, step: int, images: dict[str, pathlib.Path]) -> None:
        self._put("images", step, images)

    def finish(self, summary: dict[str, Any] | None) -> None:
        self._put("finish", summary)

    def wait(self, seconds: float) -> None:
        """Give it so long to do what waits; says what was not done."""
        if not self._done.wait(max(seconds, 0)):
            self._warn(f"tracker: {self._name} has not finished, with {self._waiting.qsize()} records to go, and is left alone")
        self._say_failure()
        if self._dropped:
            self._warn(f"tracker: {self._name} was too slow, {self._dropped} records were left out")

    def _put(self, method: str, *arguments: Any) -> None:
        self._say_failure()
        try:
            self._waiting.put_nowait((method, arguments))
        except queue.Full:
            self._dropped += 1

    def _say_failure(self) -> None:  # by the run's own thread, which the console belongs to
        if self._failure:
            self._warn(f"tracker: {self._name} failed and is left alone ({self._failure})")
            self._failure = ""

    def _work(self) -> None:
        method = ""
        try:
            tracker = self._make()
            while method != "finish":
                method, arguments = self._waiting.get()
                getattr(tracker, method)(*arguments)
        except BaseException as error:
            self._failure = f"{type(error).__name__} in {method or 'its constructor'}: {explain(error)[:200]}"
        self._done.set()
        while method != "finish":  # so that none counts as left out
            method, _ = self._waiting.get()


class Trackers:
    """Those of a run, asked for by --tracker. TensorBoard's file is the run's own: where it cannot be written, the run ends."""

    def __init__(self, spec: str, warn: Callable[[str], None]):
        chosen = names(spec)
        board = [TensorBoard()] if "tensorboard" in chosen else []  # before there are threads that import anything
        self._all: list[Any] = board + [Apart(name, _class_of(name), warn) for name in chosen if name != "tensorboard"]

    def start(self, config: dict[str, Any]) -> None:
        for tracker in self._all:
            tracker.start(config)

    def log(self, row: dict[str, Any]) -> None:
        """A row of metrics.jsonl."""
        values = {f"{row['split']}/{name}": value for name, value in row.items() if name not in ("step", "split")}
        for tracker in self._all:
            tracker.log(row["step"], dict(values))

    def images(self, step: int, images: dict[str, pathlib.Path]) -> None:
        for tracker in self._all if images else ():
            tracker.images(step, dict(images))

    def finish(self, summary: dict[str, Any] | None) -> None:
        for tracker in self._all:
            tracker.finish(summary)
        end = time.monotonic() + (STOP_SECONDS if summary is None else FINISH_SECONDS)
        for tracker in self._all:
            if isinstance(tracker, Apart):
                tracker.wait(end - time.monotonic())


def names(spec: str) -> list[str]:
    """The trackers in a list such as "tensorboard,mine:Tracker"; "none" for none of them.

    Raises:
      UserError: one is neither tensorboard nor MODULE:CLASS, is there twice, or cannot be had.
    """
    found = [name.strip() for name in spec.split(",")]
    if found == ["none"]:
        return []
    for name in found:
        if name != "tensorboard":
            _class_of(name)
        if found.count(name) > 1:
            raise UserError(f"tracker: {name} given twice")
    return found


def _class_of(name: str) -> Callable[[], Tracker]:
    if not own.is_own(name):
        raise UserError(
            f"tracker: {name[:60]!r} given, tensorboard, none or MODULE:CLASS is needed, with commas between several"
        )
    kind = own.function_of("tracker", name)
    missing = [method for method in METHODS if not callable(getattr(kind, method, None))]
    if missing:
        raise UserError(f"tracker: {name} has no {' or '.join(missing)}; a tracker has {', '.join(METHODS)}")
    return kind
