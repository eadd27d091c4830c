"""Errors a user can act on: one line on standard error and exit status 2."""

from __future__ import annotations

import difflib
import errno
import sys
import traceback
from collections.abc import Callable, Iterable


class UserError(Exception):
    """Something the user can change; the message names it, what was given and what is allowed."""


def nearest(what: str, given: str, known: Iterable[str]) -> str:
    """The message for an unknown name, with the nearest known ones."""
    known = sorted(known)
    near = difflib.get_close_matches(given, known, n=3, cutoff=0.5)
    return f"{what}: {given!r} is not known; " + (f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(known)}")


def run(main: Callable[[list[str]], int], arguments: list[str] | None = None) -> int:
    """Call `main`; a user's error becomes one line and status 2. `--debug` anywhere shows the traceback as well."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    try:
        return main([argument for argument in arguments if argument != "--debug"])
    except (UserError, ValueError, TypeError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # the reader of our output went away, as in `... | head`
            sys.stderr.close()
            return 0
        if debug:
            traceback.print_exc()
        print(f"error: {explain(error)}", file=sys.stderr)
        return 2


def explain(error: BaseException) -> str:
    """One line for an error, in the user's terms where the operating system's are obscure."""
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return f"{where}no space left to write to ({error.strerror})"
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return f"{where}no permission to write or read there ({error.strerror})"
        return f"{where}{error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
