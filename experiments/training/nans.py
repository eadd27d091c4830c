"""--debug-nans: which operation of which step made the first value that is not a number."""

from __future__ import annotations

import contextlib
import io
import pathlib
import re
import traceback
from collections.abc import Callable, Iterator

import jax

from experiments.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]


@contextlib.contextmanager
def named(when: str, after: Callable[[], str]) -> Iterator[None]:
    """Raise a UserError that names the operation where JAX finds a NaN in what the block computes.

    Args:
      when: "step 3"; `after`: says what there is to go on from.
    """
    # JAX prints that it looks for the operation.
    on = jax.config.jax_debug_nans  # type: ignore[attr-defined]
    printed = contextlib.redirect_stdout(io.StringIO()) if on else contextlib.nullcontext()
    try:
        with printed:
            yield
    except FloatingPointError as error:
        found = re.search(r"encountered in ([\w()\-]+)", str(error))
        raise UserError(
            f"debug_nans: NaN in {found[1] if found else 'a result'} at {when}{_where(error)}; {after()}"
        ) from error


def _where(error: BaseException) -> str:
    """The innermost line outside the installed packages that led there."""
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    if not ours:
        return ""
    path = pathlib.Path(ours[-1].filename)
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
    return f" ({name}, line {ours[-1].lineno})"


def steps(done: int, count: int) -> str:
    """The next `count` steps after `done`, in words."""
    return f"step {done + 1}" if count == 1 else f"one of the steps {done + 1} to {done + count}"
