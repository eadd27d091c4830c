"""zoo.keep_freed_memory: pages are taken from the system once, not in each call of a program."""

from __future__ import annotations

import subprocess
import sys

import pytest

from zoo import memory

# Page faults of a program with a result of 64 MiB, in a process of its own: the fewest of five calls, since the thread that
# computes may give a result back later than the one that drops it.
PROGRAM = """
import resource, sys
import zoo
if sys.argv[1] == "kept":
    assert zoo.keep_freed_memory()
import jax, jax.numpy as jnp
x = jnp.ones((4096, 4096))
step = jax.jit(lambda x: x + 1)
counts = []
for _ in range(6):
    step(x).block_until_ready()
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(min(later - earlier for earlier, later in zip(counts, counts[1:])))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_later_calls_take_no_new_pages() -> None:
    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    pages = 64 * 2**20 // 4096
    assert faults("as ever") > pages / 2
    assert faults("kept") < pages / 20


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(memory.ctypes, "CDLL", None)
    assert memory.keep_freed_memory() is False
