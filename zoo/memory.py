"""What becomes of memory that a process frees."""

from __future__ import annotations

import ctypes
import platform

# Parameters of mallopt(3), from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGEST = 2**31 - 1  # mallopt takes a C int


def keep_freed_memory() -> bool:
    """Let the process keep what it frees for its next allocation, instead of giving it back to the system.

    XLA allocates the arrays of a program on a CPU anew in each call. glibc's malloc takes arrays above 32 MB from the system
    each time and gives them back after, so that each call pays for pages that the system fills with zeros first: a quarter
    of a training step of an LSTM, two thirds of a max pool over large images. With this, after a dozen calls, there are no new
    pages, and a process holds as much memory as it once needed at most, until it ends.

    Call it once, before the first computation: threads that allocated before keep their own pools. It holds for everything in
    the process, torch and NumPy included. The trainer and the other commands of the experiments call it.

    Returns:
      Whether it was done: with glibc only. Elsewhere nothing changes.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # One pool for all threads, since only its memory grows without a limit for each block.
    settings = ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, 2**30), (_TRIM_THRESHOLD, _LARGEST))
    return sum(mallopt(*setting) for setting in settings) == len(settings)
