"""Errors a user can act on: one line on standard error and exit status 2."""

from __future__ import annotations

import difflib
import errno
import math
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from typing import Any

# How TensorStore words an error of the operating system's.
TENSORSTORE = re.compile(r"local file \"([^\"]*)\".*os_error_code='(\d+)'")


class UserError(Exception):
    """Something the user can change; the message names it, what was given and what is allowed."""


def nearest(what: str, given: str, known: Iterable[str]) -> str:
    """The message for an unknown name, with the nearest known ones."""
    known = sorted(known)
    near = difflib.get_close_matches(given, known, n=3, cutoff=0.5)
    return f"{what}: {given!r} is not known; " + (f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(known)}")


KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a whole number"),
    "float": ((float, int), "a finite number"),
    "bool": ((bool,), "True or False"),
    "str": ((str,), "text"),
    "None": ((type(None),), "none"),
}


def check_kind(what: str, value: Any, kind: str) -> None:
    """Raise a UserError where a value is not of the kind that an annotation says: "int", "float | None"."""
    kinds = [KINDS[part] for part in kind.split(" | ")]
    types = tuple(type_ for part, _ in kinds for type_ in part)
    finite = not isinstance(value, float) or math.isfinite(value)
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types) or not finite:
        raise UserError(f"{what}: {value!r:.60} given, {' or '.join(words for _, words in kinds)} is needed")


def run(main: Callable[[list[str]], int], arguments: list[str] | None = None) -> int:
    """Call `main`; a user's error becomes one line and status 2, Ctrl-C one line and status 130.

    `--debug` anywhere shows the traceback as well.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _control_c)
    try:
        return main([argument for argument in arguments if argument != "--debug"])
    except KeyboardInterrupt:
        if debug:
            traceback.print_exc()
        print("interrupted", file=sys.stderr)
        return 130
    except (UserError, ValueError, TypeError, OSError, OverflowError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not str(error).startswith("RESOURCE_EXHAUSTED"):
            raise  # a defect; of what XLA raises, only that memory ran out is the user's to change
        if isinstance(error, BrokenPipeError):  # the reader of our output went away, as in `... | head`
            sys.stderr.close()
            return 0
        if debug:
            traceback.print_exc()
        print(f"error: {explain(error)}", file=sys.stderr)
        return 2


def _control_c(_number: int, _frame: Any) -> None:
    """Ctrl-C. While something is imported it ends the process here: on its way through the beginning of an extension in C++,
    such as jaxlib's, an exception becomes another one, or a crash."""
    specs = [getattr(module, "__spec__", None) for module in list(sys.modules.values())]
    if any(getattr(spec, "_initializing", False) for spec in specs):
        os.write(2, b"interrupted\n")
        os._exit(130)
    raise KeyboardInterrupt


def explain(error: BaseException) -> str:
    """One line for an error, in the user's terms where the operating system's are obscure."""
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return f"{where}no space left to write to ({error.strerror})"
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return f"{where}no permission to write or read there ({error.strerror})"
        return f"{where}{error.strerror}"
    text = " ".join(str(error).split())
    if told := TENSORSTORE.search(text):
        return explain(OSError(int(told[2]), os.strerror(int(told[2])), told[1]))
    return text or type(error).__name__
