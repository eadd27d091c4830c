"""Command-line flags: one line for what is wrong with a value, status 2, and nothing done."""

from __future__ import annotations

import argparse
import ast
import inspect
import itertools
import math
import pathlib
import types
import typing
from collections.abc import Callable
from typing import Any, NoReturn

from experiments.errors import UserError, nearest


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are `UserError`s of one line, and whose help ends with an example.

    Args:
      module: what the command is called by, "experiments.evaluate".
      doc: the module's docstring, of which the first paragraph is shown.
      example: flags that make sense together.
    """

    def __init__(self, module: str, doc: str | None, example: str, usage: str | None = None):
        command = f"python -m {module}"
        first = " ".join((doc or "").split("\n\n")[0].split())
        super().__init__(
            prog=command,
            usage=usage,
            description=first,
            epilog=f"example: {command} {example}",
            allow_abbrev=False,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=26),
        )

    def parse_args(self, arguments: Any = None, namespace: Any = None) -> Any:
        found, others = self.parse_known_args(arguments, namespace)
        if others:
            flags = [flag for action in self._actions for flag in action.option_strings]
            first = others[0].partition("=")[0]
            raise UserError(nearest("flag", first, flags) if first.startswith("-") else f"{first!r}: not expected there")
        return found

    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix("argument ").replace("the following arguments are required", "missing"))


def add_fields(parser: argparse.ArgumentParser, default: Any, without: tuple[str, ...] = ()) -> None:
    """A flag for each field of a dataclass but those `without`: its docstring is the help, its default that of `default`."""
    kinds = typing.get_type_hints(type(default))
    docs = _field_docs(type(default))
    for name in (name for name in docs if name not in without):
        value, kind = getattr(default, name), kinds[name]
        choices = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
        shown = f"{docs[name].removesuffix('.')}: {', '.join(choices)}" if choices else docs[name].removesuffix(".")
        shown = shown.replace("%", "%%") + ("" if value in (None, "") else f" ({value})")
        options: dict[str, Any] = {"dest": name, "default": value, "help": shown}
        if choices:
            options |= {"choices": choices, "metavar": "NAME"}
        elif kind is bool:
            options |= {"action": argparse.BooleanOptionalAction if value else "store_true"}
        else:
            options |= {"type": _of_kind(kind), "metavar": _METAVARS[_plain(kind)]}
        parser.add_argument(f"--{name.replace('_', '-')}", **options)


_METAVARS = {int: "N", float: "X", str: "TEXT"}


def _plain(kind: Any) -> type:
    return next(k for k in (*typing.get_args(kind), kind) if k is not types.NoneType)


def _of_kind(kind: Any) -> Callable[[str], Any]:
    """A type for argparse: text as int, float or str, and "none" where a field may be None."""

    def parse(text: str) -> Any:
        if types.NoneType in typing.get_args(kind) and text.lower() == "none":
            return None
        try:
            return _plain(kind)(text)
        except ValueError as error:
            wanted = "a whole number" if _plain(kind) is int else "a number"
            raise argparse.ArgumentTypeError(f"{text[:40]} given, {wanted} is needed") from error

    return parse


def _field_docs(kind: type) -> dict[str, str]:
    """The docstrings below the fields of a dataclass."""
    (definition,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(definition, ast.ClassDef)
    docs = {}
    for field, doc in itertools.pairwise(definition.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(doc, ast.Expr):
            docs[field.target.id] = " ".join(ast.literal_eval(doc.value).split())
    return docs


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """A type for argparse: a whole number from `low` to `high`."""
    return _checked(int, _range(low, high), lambda n: low <= n and (high is None or n <= high))


def number(low: float, high: float | None = None, *, above: bool = False) -> Callable[[str], float]:
    """A type for argparse: a finite number from `low`, or `above` it, to `high`."""
    wanted = f"a number above {low:g}" + (f", at most {high:g}," if high is not None else "") if above else _range(low, high)
    inside = lambda n: math.isfinite(n) and (low < n if above else low <= n) and (high is None or n <= high)
    return _checked(float, wanted, inside)


def output(text: str) -> pathlib.Path:
    """A type for argparse: a file or folder to write, in a folder that is there, so that a mistyped path makes none."""
    path = pathlib.Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text} given, but there is no folder {path.parent}")
    return path


def _range(low: float, high: float | None) -> str:
    return f"{low:g} or more" if high is None else f"{low} to {high}"


def _checked(kind: Callable[[str], Any], wanted: str, allowed: Callable[[Any], bool]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except (ValueError, OverflowError):
            value = None
        if value is None or not allowed(value):
            what = "a whole number, " if kind is int and value is None else ""
            raise argparse.ArgumentTypeError(f"{text[:40]} given, {what}{wanted} is needed")
        return value

    return parse


LARGEST_SEED = 2**32 - 2  # of those that jax.random.key tells apart; one more is used beside it
SEED = whole(0, LARGEST_SEED)
