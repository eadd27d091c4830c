"""Reads the pickles of a data set without Python's unpickler: a file can make numbers, text, bytes, lists, tuples, dicts and
arrays of integers, and nothing that it names is ever called.

Known are the operations of protocols 2 to 5 that such files hold; Lib/pickletools.py describes them. There is no recursion, and
memory and time grow with the file: an index or a size that it only states allocates nothing.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

MOST_OPERATIONS = 2_000_000  # CIFAR-100's 50,000 file names and its labels take a fifth of it
NUMPY = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
ADMITTED = {(module, name) for module in NUMPY for name in ("_reconstruct", "ndarray", "dtype")}
ADMITTED |= {("_codecs", "encode")}  # how Python 2's byte strings come through protocol 2
DTYPES = frozenset(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8))
MARK = object()


class _Name(NamedTuple):
    """Stands for something that the file names."""

    name: str


class _Dtype:
    """Stands for an integer dtype: its code, and the byte order that a later operation adds."""

    def __init__(self, code: str):
        self.code = code

    def build(self, state: tuple) -> None:
        if len(state) < 2 or state[1] not in ("<", ">", "|", "=") or any(part not in (None, -1, 0) for part in state[2:]):
            raise ValueError("a dtype that is not plain integers")
        self.code = state[1] + self.code


class _Array:
    """Stands for an array, empty until a later operation says what it holds."""

    value: np.ndarray | None = None

    def build(self, state: tuple) -> None:
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _Dtype) or type(content) is not bytes:
            raise ValueError("an array that is not of integers")
        kind = np.dtype(dtype.code)
        if any(type(side) is not int or side < 0 for side in shape) or math.prod(shape) * kind.itemsize != len(content):
            raise ValueError(f"an array of shape {shape!r:.60} and {len(content)} bytes")
        self.value = np.frombuffer(content, kind).reshape(shape, order="F" if fortran else "C")


def _kind(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise ValueError(f"a {type(value).__name__} where a {kinds[0].__name__} must be")
    return value


def _named(module: Any, name: Any) -> _Name:
    if (_kind(module, str), _kind(name, str)) not in ADMITTED:
        what = " ".join(f"{module:.60}.{name:.60}".split())
        raise ValueError(f"it asks for {what}, which no data set has need of; nothing was run")
    return _Name(name)


def _called(function: _Name, arguments: tuple) -> Any:
    """What the function would have given, without it."""
    if function.name == "_reconstruct" and arguments[0] == _Name("ndarray"):
        return _Array()
    if function.name == "dtype" and arguments[0] in DTYPES:
        return _Dtype(arguments[0])
    if function.name == "encode" and arguments[1] == "latin1":
        return _kind(arguments[0], str).encode("latin1")
    raise ValueError(f"it calls {function.name} in a way that no array of integers has need of; nothing was run")


class _Machine:
    """The stack and the memo of a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, content: bytes) -> Any:
        for number, (operation, argument, _) in enumerate(pickletools.genops(content)):
            if number == MOST_OPERATIONS:
                raise ValueError(f"more than {MOST_OPERATIONS:,} operations, which no data set has need of")
            if operation.name not in OPERATIONS:
                raise ValueError(f"the operation {operation.name}, which no data set has need of; nothing was run")
            OPERATIONS[operation.name](self, argument)
        return self.stack[-1]

    def last(self, count: int) -> list[Any]:
        """Take so many off the stack."""
        if count > len(self.stack):
            raise IndexError("nothing on the stack")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def marked(self) -> list[Any]:
        """Take all above the last mark off the stack, and the mark."""
        count = next(count for count in range(len(self.stack)) if self.stack[-1 - count] is MARK)
        taken = self.last(count)
        self.stack.pop()
        return taken

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def extend(self, items: list[Any]) -> None:
        _kind(self.stack[-1], list).extend(items)

    def update(self, items: list[Any]) -> None:
        keys = [_kind(key, bytes, str) for key in items[::2]]  # nothing whose hash goes deep
        _kind(self.stack[-1], dict).update(zip(keys, items[1::2], strict=True))

    def call(self) -> None:
        function, arguments = self.last(2)
        self.push(_called(_kind(function, _Name), _kind(arguments, tuple)))

    def build(self) -> None:
        (state,) = self.last(1)
        _kind(self.stack[-1], _Array, _Dtype).build(_kind(state, tuple))


Operation = Callable[[_Machine, Any], None]
OPERATIONS: dict[str, Operation] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda machine, _: None),
    **dict.fromkeys(
        ("BININT", "BININT1", "BININT2", "LONG1", "BINBYTES", "SHORT_BINBYTES", "BINUNICODE", "SHORT_BINUNICODE"), _Machine.push
    ),
    # Python 2's byte strings, which pickletools gives as text.
    **dict.fromkeys(("BINSTRING", "SHORT_BINSTRING"), lambda machine, text: machine.push(text.encode("latin1"))),
    "NONE": _Machine.push,
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "MARK": lambda machine, _: machine.push(MARK),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.last(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.last(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.last(3))),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.marked())),
    "APPEND": lambda machine, _: machine.extend(machine.last(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.marked()),
    "SETITEM": lambda machine, _: machine.update(machine.last(2)),
    "SETITEMS": lambda machine, _: machine.update(machine.marked()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.remember),
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda machine, index: machine.push(machine.memo[index])),
    "GLOBAL": lambda machine, name: machine.push(_named(*name.split(" ", 1))),
    "STACK_GLOBAL": lambda machine, _: machine.push(_named(*machine.last(2))),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
}


def read_pickle(content: bytes) -> dict[Any, Any]:
    """The dict in a pickle, by its keys of bytes or str; arrays in it are arrays of integers, read-only.

    Raises:
      ValueError: it is damaged, holds anything else, or asks for something to be called.
    """
    try:
        found = _kind(_Machine().run(content), dict)
    except (TypeError, KeyError, IndexError, OverflowError, MemoryError, StopIteration) as error:
        raise ValueError(f"damaged, or no pickle of a data set ({type(error).__name__}: {error})") from error
    return {key: value.value if isinstance(value, _Array) else value for key, value in found.items()}
