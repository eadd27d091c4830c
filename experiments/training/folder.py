"""Whose a workdir is: locked while a run lives in it, refused where it holds what no run has left, and never emptied before
the new run has something to put in its place."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import shutil
import socket
from collections.abc import Iterator
from typing import TextIO

from experiments.errors import UserError, explain
from experiments.training import run_files
from zoo import model_card

LOCK, ASIDE, MOVING = ".lock", ".earlier", ".earlier.part"


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
    """Keep every other run out of `workdir`, which is made where it is missing. The lock ends with the process.

    Raises:
      UserError: another run is in it, or it cannot be written to.
    """
    made = [folder for folder in (workdir, *workdir.parents) if not folder.exists()]
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / LOCK).open("a+")
    except OSError as error:
        raise UserError(f"workdir: {explain(error)}") from error
    try:
        _lock(file, workdir)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                (workdir / LOCK).unlink()
    finally:
        file.close()
        for folder in made:  # those that nothing was put into
            with contextlib.suppress(OSError):
                folder.rmdir()


def _lock(file: TextIO, workdir: pathlib.Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            return  # a file system without locks
        file.seek(0)
        owner = file.read().strip() or "unknown"
        raise UserError(f"workdir: another run is in {workdir} ({owner}); wait for it, or give another --workdir") from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()


def check_own(workdir: pathlib.Path) -> None:
    """Raise UserError where `workdir` holds files of a run's names that no run has left there."""
    config = workdir / "config.json"
    if config.exists():
        try:
            content = json.loads(config.read_text())
        except (ValueError, RecursionError):
            return  # damaged
        if isinstance(content, dict) and isinstance(content.get("recipe"), dict):
            return
        names = ["a config.json that is no run's"]
    else:
        names = [name for name in (*run_files.FILES, *run_files.FOLDERS) if (workdir / name).exists()]
    if names:
        raise UserError(
            f"workdir: {workdir} holds {', '.join(names[:4])}, and no run that would be continued or replaced; nothing was "
            "touched: give another --workdir"
        )


def set_aside(workdir: pathlib.Path) -> bool:
    """Move what an earlier run left into a folder of its own, for `drop_aside` to delete; whether there was anything.

    What was set aside before stays, as long as no run has come as far as a checkpoint since then. A move that was cut off
    is finished.
    """
    aside, moving = workdir / ASIDE, workdir / MOVING
    if aside.exists():
        if not run_files.newest_checkpoint(workdir):
            run_files.clear(workdir)
            return True
        drop_aside(workdir)
    present = [name for name in (*run_files.FILES, *run_files.FOLDERS) if (workdir / name).exists()]
    card = workdir / model_card.FILE
    if card.is_file() and model_card.is_own(card):
        present.append(model_card.FILE)
    if not present and not moving.exists():
        return False
    moving.mkdir(exist_ok=True)
    for name in sorted(present, key=lambda name: name == "config.json"):  # last: until then it is a run
        (workdir / name).rename(moving / name)
    moving.rename(aside)
    return True


def drop_aside(workdir: pathlib.Path) -> None:
    """Delete what was set aside, once what takes its place is on the disk."""
    if (workdir / ASIDE).exists():
        os.sync()
        shutil.rmtree(workdir / ASIDE, ignore_errors=True)
