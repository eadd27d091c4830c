"""zoo.keep_freed_memory: pages are taken from the system once, not in each call of a program."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from zoo import memory

# Page faults of 20 calls of a program with a result of 64 MiB, in a process of its own. In the first dozen calls malloc still
# finds the holes too small, since small blocks lie between.
PROGRAM = """
import resource, sys
import zoo
if sys.argv[1] == "kept":
    assert zoo.keep_freed_memory()
import jax, jax.numpy as jnp
x = jnp.ones((4096, 4096))
step = jax.jit(lambda x: x + 1)
for call in range(60):
    if call == 40:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_later_calls_take_no_new_pages() -> None:
    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    if platform.libc_ver()[0] != "glibc":
        assert memory.keep_freed_memory() is False
        return
    pages = 20 * 64 * 2**20 // 4096
    assert faults("as ever") > pages / 2
    assert faults("kept") < pages / 20  # one call may still take its pages


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(memory.ctypes, "CDLL", None)
    assert memory.keep_freed_memory() is False
