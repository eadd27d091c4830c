"""Runs @triton.jit kernels on the CPU, in Triton's interpreter, with every access to memory checked.

The source is the same that runs on the GPU: the interpreter is entered explicitly, not by the variable TRITON_INTERPRET, which
would have to be set before the kernels are imported and would prevent compiling them in the same process. Added to Triton's own
interpreter:

- any load, store or atomic outside the arrays handed in raises, and so does a load of an output's element that nobody has
  written; outputs start as poison (NaN, 255), as fresh memory might;
- numbers become bfloat16 by rounding to the nearest, ties to even, as on a GPU (Triton 3.6 to 3.9 cut float32 off, and take the
  number that an integer is for bits), and products of bfloat16 are right (they multiply the raw bits);
- a loop counts in 32 bits, as the compiled one does (Triton's own counts in Python's integers, which do not overflow);
- the programs of a grid can run at the same time, so that a barrier across the grid can be tested;
- one program can run on arrays that are larger than memory, for what it accesses (`accesses`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import itertools
import math
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import triton.language as tl
from triton.runtime import interpreter, jit

from kernels.runtime import precision
from kernels.runtime.launches import Launch
from kernels.verification import cooperative

_lock = threading.Lock()  # the interpreter patches triton.language while it runs
_rewriting = threading.Lock()
_TRITON_NAMES = {
    np.dtype(ml_dtypes.bfloat16): "bf16",
    np.dtype(np.float16): "fp16",
    np.dtype(np.float32): "fp32",
    np.dtype(np.int32): "i32",
    np.dtype(np.uint32): "u32",
    np.dtype(np.uint8): "u8",
}


class OutOfBoundsError(Exception):
    """A kernel touched memory that belongs to none of its arrays."""


class UnwrittenError(Exception):
    """A kernel read memory that nobody had written."""


class _AbandonedError(Exception):
    """Ends a program because another one of its launch has failed."""


@dataclasses.dataclass(frozen=True)
class Access:
    """One load, store or atomic of one program.

    Attributes:
      addresses: of each element in bytes, from the beginning of its array; arrays are 2 ** 40 apart. Shaped like the tile.
      mask: which elements are accessed.
      size: of an element, in bytes.
    """

    what: str
    program: tuple[int, ...]
    addresses: np.ndarray
    mask: np.ndarray
    size: int


_recorders: list[list[Access]] = []  # of the `recording`s in force


@contextlib.contextmanager
def recording() -> Iterator[list[Access]]:
    """Lists what the programs that run inside the block access."""
    record: list[Access] = []
    _recorders.append(record)
    try:
        yield record
    finally:
        _recorders.pop()


class _Builder(interpreter.InterpreterBuilder):
    """Triton's interpreter, one program per thread, with checked memory and bfloat16 as a GPU has it."""

    def __init__(self):
        super().__init__()
        # It multiplies float32 as float32, whatever is asked for, and refuses what it does not know.
        allowed = (precision.ONE_PASS, precision.EXACT, *precision.SPLIT)
        self.options = dataclasses.replace(interpreter.InterpreterOptions(), allowed_dot_input_precisions=allowed)
        self.bounds = np.zeros((0, 2), np.uint64)  # of each array, the first and the one-past-last address, sorted
        self.written: list[np.ndarray | None] = []  # of each array, which bytes are; None for all
        self.nothing_there = False  # loads give zeros and stores nothing: `accesses`
        self.abandoned = threading.Event()  # a launch has failed: programs that wait for others at a barrier must end
        self._thread = threading.local()

    @property
    def grid_idx(self):
        return self._thread.index

    @grid_idx.setter
    def grid_idx(self, index):
        self._thread.index = index

    def _check(self, pointers, mask, what: str) -> None:
        addresses = pointers.data[np.broadcast_to(mask.data, pointers.data.shape).astype(bool)]
        size = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
        array = np.searchsorted(self.bounds[:, 0], addresses, side="right") - 1
        inside = (array >= 0) & (addresses + np.uint64(size) <= self.bounds[array, 1])
        if not inside.all():
            raise OutOfBoundsError(f"{what} outside every array, in program {self.grid_idx}: {(~inside).sum()} addresses")
        for number in np.unique(array):
            if (written := self.written[number]) is None:
                continue
            first = (addresses[array == number] - self.bounds[number, 0]).astype(np.int64)
            if what == "store":
                for byte in range(size):
                    written[first + byte] = True
            elif not (written[first].all() and written[first + size - 1].all()):
                raise UnwrittenError(f"{what} of what nobody has written, in program {self.grid_idx}, of an output")
        if _recorders:
            valid = np.broadcast_to(mask.data, pointers.data.shape).astype(bool)
            relative = np.zeros(valid.shape, np.int64)
            relative[valid] = (addresses - self.bounds[array, 0]).astype(np.int64) + (array << 40)
            for record in _recorders:
                record.append(Access(what, tuple(self.grid_idx), relative, valid, size))

    def create_masked_load(self, ptrs, mask, *args, **kwargs):
        self._check(ptrs, mask, "load")
        if self.nothing_there:
            kind = ptrs.get_element_ty()
            return interpreter.TensorHandle(np.zeros(ptrs.data.shape, interpreter._get_np_dtype(kind)), kind)
        return super().create_masked_load(ptrs, _as_bool(mask), *args, **kwargs)

    def create_masked_store(self, ptrs, value, mask, *args, **kwargs):
        self._check(ptrs, mask, "store")
        if self.nothing_there:
            return None
        return super().create_masked_store(ptrs, value, _as_bool(mask), *args, **kwargs)

    def create_atomic_rmw(self, op, ptr, val, mask, *args):
        self._check(ptr, mask, "atomic")
        if self.abandoned.is_set():
            raise _AbandonedError
        if self.nothing_there:  # as many as anybody waits for
            return interpreter.TensorHandle(np.full(ptr.data.shape, 2**30, np.int32), tl.int32)
        return super().create_atomic_rmw(op, ptr, val, _as_bool(mask), *args)

    def create_dot(self, a, b, *args):
        wide = (self.cast_impl(x, tl.float32) if x.dtype.scalar == tl.bfloat16 else x for x in (a, b))
        return super().create_dot(*wide, *args)

    def cast_impl(self, src, dst_type):
        """What all conversions go through: those of stored values, of operands of products, and `.to`."""
        source, target = src.dtype.scalar, dst_type.scalar
        if tl.bfloat16 not in (source, target):  # NumPy rounds float16 to the nearest
            return super().cast_impl(src, dst_type)
        values = src.data.view(ml_dtypes.bfloat16) if source == tl.bfloat16 else src.data
        if target == tl.bfloat16:
            return interpreter.TensorHandle(values.astype(ml_dtypes.bfloat16).view(np.uint16), target)
        return interpreter.TensorHandle(values.astype(interpreter._get_np_dtype(target)), target)


def _as_bool(mask):
    """A mask as Triton 3.9 wants it: what `&` and comparisons of integers leave there may be of another type."""
    return interpreter.TensorHandle(mask.data.astype(bool), mask.dtype)


def _counted(*bounds, **_):
    """range and tl.range of a kernel."""
    turns = range(*(int(getattr(bound, "value", bound)) for bound in bounds))
    for i in (*turns[:2], *turns[-2:]) if _builder.nothing_there and len(turns) > 4 else turns:
        yield tl.tensor(interpreter.TensorHandle(np.array([i], np.int32), tl.int32), tl.int32)


_builder = _Builder()
_semantic = interpreter.TritonSemantic(_builder)


def _python_function(fn: Callable) -> Callable:
    """`fn`, rewritten as the interpreter needs it, with globals of its own: the rewriting adds names to them.

    One of them is the semantics in force, so this is called within `_interpreting`. By one thread at a time: CPython 3.11
    counts the depth of every syntax tree it builds in one counter, and two threads that build one at once can fail.
    """
    with _rewriting:
        return _rewritten(fn)


@functools.cache
def _rewritten(fn: Callable) -> Callable:
    copy = types.FunctionType(fn.__code__, dict(fn.__globals__), fn.__name__, fn.__defaults__, fn.__closure__)
    copy.__annotations__ = fn.__annotations__
    copy.__globals__["range"] = _counted
    return interpreter.FunctionRewriter(copy).rewrite_ast()


@contextlib.contextmanager
def _interpreting(fn: Callable) -> Iterator[None]:
    """triton.language acts on NumPy arrays, and a kernel's helper functions can be called, until the block ends."""
    saved = interpreter.interpreter_builder, interpreter.interpreter_semantic, jit.JITFunction.__call__
    interpreter.interpreter_builder, interpreter.interpreter_semantic = _builder, _semantic
    jit.JITFunction.__call__ = lambda self, *args, **kwargs: _python_function(self.fn)(*args, **kwargs)
    scopes = [interpreter._patch_lang(f) for f in (fn, tl.standard.zeros.fn)]  # tl, and tl.core as the library itself sees it
    scopes[0].set_attr(tl, "range", _counted)
    # a one-element array is no number to NumPy any longer
    scopes[0].set_attr(tl.tensor, "__index__", lambda self: self.handle.data.item())
    try:
        with np.errstate(all="ignore"):  # what a GPU computes without a word: 1 / 0, infinity - infinity
            yield
    finally:
        for scope in reversed(scopes):
            scope.restore()
        interpreter.interpreter_builder, interpreter.interpreter_semantic, jit.JITFunction.__call__ = saved


# What runs launches instead, where something does: the last one.
_instead: list[Callable[[Launch, Sequence[np.ndarray]], list[np.ndarray]]] = []


@contextlib.contextmanager
def instead(run: Callable[[Launch, Sequence[np.ndarray]], list[np.ndarray]]) -> Iterator[None]:
    """Inside the block `launch` gives the results of `run`, which takes the same arguments."""
    _instead.append(run)
    try:
        yield
    finally:
        _instead.pop()


def launch(call: Launch, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Runs a launch of an operator's kernel on arrays, or has it run by what `instead` names; its results."""
    return (_instead[-1] if _instead else interpreted)(call, inputs)


def interpreted(call: Launch, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Runs a launch in the interpreter. Of what is raised see `execute`."""
    return execute(call.kernel, call.grid, inputs, call.outputs, call.zeroed_outputs, dict(call.constants), call.cooperative)


def execute(
    kernel: Any,
    grid: Sequence[int],
    inputs: Sequence[np.ndarray],
    outputs: Sequence[tuple[tuple[int, ...], np.dtype]],
    zeroed_outputs: Sequence[int] = (),
    constants: dict[str, Any] | None = None,
    together: bool = False,
) -> list[np.ndarray]:
    """Run every program of `grid`; `together`: all at the same time, as a kernel with a barrier across the grid needs.

    The kernel's parameters are the inputs, the outputs (poisoned, or zero where their index is one of `zeroed_outputs`), and
    the constants.

    Raises:
      OutOfBoundsError: the kernel touched memory outside its arrays.
      UnwrittenError: it read of an output what no program had written.
      TimeoutError: programs that run together did not end.
    """
    arrays = [np.ascontiguousarray(a) for a in inputs]
    results = [np.zeros(shape, dtype) for shape, dtype in outputs]
    for i, result in enumerate(results):
        if i not in zeroed_outputs:
            result.reshape(-1).view(np.uint8).fill(255)
    pointers, bounds = [], []
    for number, array in enumerate((*arrays, *results), -len(arrays)):
        address = array.__array_interface__["data"][0]
        known = number < 0 or number in zeroed_outputs
        bounds.append((address, address + array.nbytes, None if known else np.zeros(array.nbytes, bool)))
        kind = tl.pointer_type(tl.str_to_ty(_TRITON_NAMES[array.dtype], None))
        pointers.append(tl.tensor(interpreter.TensorHandle(np.array([address], np.uint64), kind), kind))
    sizes = tuple(grid) + (1,) * (3 - len(grid))

    with _lock, _interpreting(kernel.fn):
        bounds.sort(key=lambda one: one[:2])
        _builder.bounds = np.array([one[:2] for one in bounds], np.uint64)
        _builder.written = [written for *_, written in bounds]
        _builder.set_grid_dim(*sizes)
        fn = _python_function(kernel.fn)
        arguments = inspect.getcallargs(fn, *pointers, **(constants or {}))

        def program(index: tuple[int, ...]) -> None:
            _builder.set_grid_idx(*index)
            fn(**arguments)

        programs = list(itertools.product(*map(range, sizes)))
        if together:
            cooperative.run(program, programs, _builder.abandoned)
        else:
            for index in programs:
                program(index)
    return results


def accesses(
    kernel: Any,
    grid: Sequence[int],
    arrays: Sequence[tuple[tuple[int, ...], np.dtype]],
    constants: dict[str, Any],
    programs: Sequence[tuple[int, ...]],
) -> list[Access]:
    """What some programs of a grid access of arrays that are not there: it takes memory for the programs' tiles only.

    Loads give zeros, atomics say that everybody has come, and a loop takes its first two turns and its last two.
    `Access.addresses` are numbered by the kernel's parameters.

    Raises:
      OutOfBoundsError: a program would touch memory outside the arrays, as it does where an offset overflows.
    """
    bases = [(number + 1) << 44 for number in range(len(arrays))]
    pointers = []
    for base, (_, dtype) in zip(bases, arrays, strict=True):
        kind = tl.pointer_type(tl.str_to_ty(_TRITON_NAMES[np.dtype(dtype)], None))
        pointers.append(tl.tensor(interpreter.TensorHandle(np.array([base], np.uint64), kind), kind))
    sizes = [math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in arrays]
    with recording() as record, _lock, _interpreting(kernel.fn):
        _builder.bounds = np.array([(base, base + size) for base, size in zip(bases, sizes, strict=True)], np.uint64)
        _builder.written = [None] * len(arrays)
        _builder.set_grid_dim(*grid, *(1,) * (3 - len(grid)))
        fn = _python_function(kernel.fn)
        arguments = inspect.getcallargs(fn, *pointers, **constants)
        _builder.nothing_there = True
        try:
            for index in programs:
                _builder.set_grid_idx(*index, *(0,) * (3 - len(index)))
                fn(**arguments)
        finally:
            _builder.nothing_there = False
    return record
