"""Device memory and a block's shared memory: arrays far apart, every access held against their bounds.

An access that is outside, misaligned, or a write to an input raises. What is written starts as poison (255), and the shadow of
an array knows what nobody has written yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernels.verification.ptx.errors import ExecutionError, MisalignedError, OutOfBoundsError, ReadOnlyError
from kernels.verification.ptx.shadow import Shadow, untouched
from kernels.verification.ptx.text import Instruction
from kernels.verification.ptx.values import FLOAT, UNSIGNED, Bits

if TYPE_CHECKING:
    from kernels.verification.ptx.block import Block

APART = 1 << 40  # bytes from the beginning of one array in device memory to that of the next
POISON = 255
# Told of every access: its space, the threads, their addresses, the bytes of each, the instruction, whether it writes.
Watch = Callable[[str, Any, Bits, int, Instruction, bool], None]


class Array:
    """Bytes that belong together.

    Attributes:
      start: address of the first byte.
      data: the bytes, and what rounds them up to a multiple of 256.
      shadow: None where nobody writes, and where a run is asked for addresses alone.
      touched: of "read" and "write" the first and the one-past-last byte, where a run is asked for addresses alone.
    """

    def __init__(self, name: str, start: int, nbytes: int, writable: bool, shadow: Shadow | None):
        self.name, self.start, self.nbytes, self.writable, self.shadow = name, start, nbytes, writable, shadow
        self.data = untouched(-(-max(nbytes, 1) // 256) * 256, np.uint8)
        self.touched: dict[str, tuple[int, int]] = {}
        self._views: dict[tuple[int, int], Bits] = {}

    @property
    def content(self) -> Bits:
        return self.data[: self.nbytes]

    def view(self, size: int, count: int) -> Bits:
        """Words of `size` bytes, in rows of `count`."""
        found = self._views.get((size, count))
        if found is None:
            words: Bits = self.data.view(UNSIGNED[8 * size])
            found = self._views[size, count] = words.reshape(-1, count) if count > 1 else words
        return found


class Memory:
    """Arrays that one kind of access reaches.

    Args:
      space: "global" or "shared".
      tracked: whether races and unwritten memory are looked for; without, the arrays note what is touched.
      watch: told of every access.
    """

    def __init__(self, space: str, arrays: Sequence[Array], tracked: bool = True, watch: Watch | None = None):
        self.space, self.arrays, self.tracked, self.watch = space, arrays, tracked, watch

    def find(
        self, block: Block, lanes: Any, where: Bits, width: int, it: Instruction, write: bool
    ) -> list[tuple[Array, Any, Bits]]:
        """Checks these addresses: for each array among them, which of the accesses are to it, and where in it (int64).

        Args:
          lanes: the threads.
          where: addresses, uint64.
          width: bytes of each access, a power of two.
        """
        if self.watch is not None:
            self.watch(self.space, lanes, where, width, it, write)
        if (where & np.uint64(width - 1)).any():
            lane = int(np.flatnonzero(where & np.uint64(width - 1))[0])
            raise MisalignedError(
                f"{width} bytes at {self._name(int(where[lane]))}: thread {lanes[lane]} of block {block.index} at {it}"
            )
        number = self._nearest(int(where[0]))
        array = self.arrays[number]
        at = (where - np.uint64(array.start)).view(np.int64)
        if int(at.min()) >= 0 and int(at.max()) + width <= array.nbytes:
            found: list[tuple[Array, Any, Bits]] = [(array, slice(None), at)]
        else:
            found = self._spread(block, lanes, where, width, it, write)
        for array, _, offsets in found:
            if write and not array.writable:
                raise ReadOnlyError(f"a write to {array.name}, at {it}")
            if not self.tracked:
                self._touch(array, "write" if write else "read", offsets, width)
        return found

    def _nearest(self, address: int) -> int:
        if self.space == "shared":
            return 0
        return min(max((address + APART // 2) // APART - 1, 0), len(self.arrays) - 1)

    def _name(self, address: int) -> str:
        array = self.arrays[self._nearest(address)]
        return f"{array.name} {address - array.start:+d}"

    def _spread(
        self, block: Block, lanes: Any, where: Bits, width: int, it: Instruction, write: bool
    ) -> list[tuple[Array, Any, Bits]]:
        """`find` where not all addresses are in one array."""
        numbers = np.array([self._nearest(address) for address in where.tolist()])
        found = []
        for number in np.unique(numbers):
            mine = np.flatnonzero(numbers == number)
            array = self.arrays[number]
            at = (where[mine] - np.uint64(array.start)).view(np.int64)
            outside = (at < 0) | (at + width > array.nbytes)
            if outside.any():
                worst = int(np.flatnonzero(outside)[0])
                raise OutOfBoundsError(
                    f"a {'write' if write else 'read'} of {width} bytes at {array.name} {int(at[worst]):+d}, which has "
                    f"{array.nbytes} bytes: thread {lanes[mine[worst]]} of block {block.index} and {outside.sum() - 1} more, "
                    f"at {it}"
                )
            found.append((array, mine, at))
        return found

    def _touch(self, array: Array, how: str, at: Bits, width: int) -> None:
        low, high = array.touched.get(how, (array.nbytes, 0))
        array.touched[how] = min(low, int(at.min())), max(high, int(at.max()) + width)

    def load(self, block: Block, lanes: Any, where: Bits, size: int, count: int, it: Instruction) -> Bits:
        """`count` words of `size` bytes from each address, [count, accesses]."""
        width = size * count
        found = self.find(block, lanes, where, width, it, False)
        result = None
        for array, mine, at in found:
            if array.shadow is not None:
                event = block.events(lanes[mine], it)
                array.shadow.read(block.clocks, block.recent(self.space), at, width, event, block.tell(it))
            view = array.view(size, count)
            rows = view.take(at // width, axis=0) if count > 1 else view.take(at // size)[:, None]
            if len(found) == 1:
                return np.ascontiguousarray(rows.T)
            if result is None:
                result = np.empty((count, len(where)), rows.dtype)
            result[:, mine] = rows.T
        assert result is not None
        return result

    def store(self, block: Block, lanes: Any, where: Bits, what: Bits, it: Instruction) -> None:
        """Writes to each address its column of `what`, [count, accesses]."""
        count, size = len(what), what.dtype.itemsize
        width = size * count
        for array, mine, at in self.find(block, lanes, where, width, it, True):
            if array.shadow is not None:
                self.note_write(block, array, at, width, block.events(lanes[mine], it), lanes[mine], it)
            view, index = array.view(size, count), at // width
            rows = what[:, mine].T if count > 1 else what[0, mine]
            view[index] = rows
            if array.shadow is not None and not np.array_equal(view[index], rows):
                self._two_at_once(block, view[index], rows, it)

    def note_write(self, block: Block, array: Array, at: Bits, width: int, event: Bits, lanes: Any, it: Instruction) -> None:
        shadow = array.shadow
        assert shadow is not None
        shadow.write(block.clocks, block.recent(self.space), at, width, event, block.tell(it))
        if shadow.fences is not None:
            shadow.place(shadow.fences, at, width, block.fences[lanes // 32])

    def _two_at_once(self, block: Block, stored: Bits, given: Bits, it: Instruction) -> None:
        """Threads that write to the same place in one instruction: of different values any one may be left."""
        other = stored != given
        if given.dtype.itemsize in (4, 8):  # one NaN is as good as another
            number = FLOAT[8 * given.dtype.itemsize]
            both = [np.ascontiguousarray(a).view(number).reshape(given.shape) for a in (stored, given)]
            other &= ~(np.isnan(both[0]) & np.isnan(both[1]))
        if other.any():
            block.tell(it)(f"{self.space} write by two threads at once, of different values", -1)

    def words(self, block: Block, lanes: Any, where: Bits, size: int, it: Instruction, write: bool) -> tuple[Bits, Bits]:
        """Of an atomic or an ordered load: the words of the array it is to, and the index of each access among them.

        Such accesses do not race with each other, and are not noted; memory that nobody has written is.
        """
        found = self.find(block, lanes, where, size, it, write)
        if len(found) > 1:
            raise ExecutionError(f"atomics to several arrays at {it}")
        array, _, at = found[0]
        if array.shadow is not None and (array.shadow.rows(array.shadow.writes, at, size) < 0).any():
            block.tell(it)(f"{self.space} read of what nobody wrote", -1)
        return array.view(size, 1), at // size
