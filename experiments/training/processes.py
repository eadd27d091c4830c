"""Several processes that are one run: how they meet, what the first does for all, and how they end together.

What is not the same in all of them is not an array but a line in the key-value store of JAX's coordinator: whether there was a
run before, that one of them was told to stop. A process that is lost is noticed by the coordinator's heartbeats; JAX then
aborts the others with a C++ stack, for which a line and a status of their own stand here.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from experiments import errors
from experiments.errors import UserError
from experiments.training.chatter import Chatter

LOST = 75  # the exit status where another process was lost: EX_TEMPFAIL of sysexits.h, "try again"
HEARTBEAT_SECONDS = 10  # a process that is silent for so long counts as lost
SHUTDOWN_SECONDS = 300  # that the others wait at the end for the one that writes curves and summary
DAY = 24 * 60 * 60 * 1000  # ms; a wait for another process ends with the heartbeats, not by its own limit

_numbers = itertools.count()  # of calls to `first`: the same in all processes, which make the same ones
_ending: int | None = None  # the status of a process that is about to end
_handler: Any = None  # called by C: it must not be collected


def client() -> Any:
    """JAX's connection to the coordinator, None in a run of one process. There is no public name for it."""
    from jax._src import distributed

    return distributed.global_state.client


def count() -> int:
    import jax

    return jax.process_count() if client() else 1


def join(coordinator: str | None, processes: int | None, process_id: int | None) -> None:
    """Meet the other processes of the run. What is None is found in the environment: SLURM, Open MPI, Kubernetes.

    Raises:
      UserError: nothing says where the others are, or they do not come.
    """
    import jax

    chatter = Chatter()
    _on_abort(chatter)
    # Its handler of SIGTERM would swallow the signal; `interrupts` agrees on a step for all signals.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process_id,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    except (ValueError, KeyError, RuntimeError) as error:
        missing = isinstance(error, KeyError) or "defined" in str(error)
        hint = "; give --coordinator HOST:PORT --processes N --process-id I (docs/scaling.md)" if missing else ""
        raise UserError(f"--distributed: {errors.explain(error)}{hint}") from error
    if client() is None:
        raise UserError("--distributed: JAX did not connect to a coordinator")


def first(call: Callable[[], Any]) -> Any:
    """What `call` returns in the first process, in all of them; JSON can hold it. It is called in the first alone.

    Raises:
      UserError: the first process raised it.
    """
    if count() == 1:
        return call()
    import jax

    key = f"zoo/first/{next(_numbers)}"
    if jax.process_index() == 0:
        try:
            result = call()
        except UserError as error:
            client().key_value_set(key, json.dumps({"error": str(error)}))
            raise
        client().key_value_set(key, json.dumps({"result": result}))
        return result
    said = json.loads(client().blocking_key_value_get(key, DAY))
    if "error" in said:
        raise UserError(said["error"])
    return said["result"]


@contextlib.contextmanager
def together(*orderly: type[Exception]) -> Iterator[None]:
    """The block is the run of all processes: they wait for each other at its end, and none for one that does not come.

    An error ends the process here, since an orderly end would wait for the others, who wait for this one.

    Args:
      orderly: exceptions that all processes raise, having done all that there is to do.
    """
    if client() is None:
        yield
        return
    import jax

    try:
        yield
    except orderly:
        jax.distributed.shutdown()
        raise
    except BaseException as error:
        _end(_report(error))
    jax.distributed.shutdown()


def lost_line(detail: str = "") -> str:
    said = f" ({detail})" if detail else ""
    return f"error: another process of this run ended or was lost{said}; the same command continues from the last checkpoint"


def _report(error: BaseException) -> int:
    """Print what ended the process, and return its status."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and len(chain) < 20:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    lines = [errors.explain(link) for link in chain]
    broken = next((line for line in lines if any(sign in line for sign in ("Gloo ", "NCCL", "oordination"))), None)
    if broken is not None and "--debug" not in sys.argv:
        print(lost_line(broken.rpartition("] ")[2] if "Gloo" in broken else broken[:160]), file=sys.stderr)
        return LOST

    def again(_: list[str]) -> int:
        raise error

    try:
        return errors.run(again)
    except BaseException:
        traceback.print_exc()
        return 1


def _end(status: int) -> NoReturn:
    """End at once, after a moment for others that end of the same error to say so too."""
    global _ending
    _ending = status
    sys.stdout.flush()
    sys.stderr.flush()
    if status != LOST:
        with contextlib.suppress(Exception):
            client().wait_at_barrier("zoo/end", 3000)
    os._exit(status)


def _on_abort(chatter: Chatter) -> None:
    """Where JAX's C++ aborts since another process was lost, print a line and end with a status.

    jaxlib cannot hand such an error to Python: its callback for it takes an absl::Status, which has no conversion, and ends
    the process too. Any other abort goes on as it was.
    """

    def aborted(_: int) -> None:
        time.sleep(0.3)  # until what was written before the abort has been read
        if _ending is not None:
            os._exit(_ending)
        fatal = chatter.fatal()
        if "distributed service" in fatal:
            os.write(chatter.stderr, (lost_line(_detail(fatal)) + "\n").encode())
            os._exit(LOST)
        os.write(chatter.stderr, fatal.encode())

    global _handler
    _handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(aborted)
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    libc.signal(6, ctypes.cast(_handler, ctypes.c_void_p))  # SIGABRT


def _detail(fatal: str) -> str:
    """Who was lost, as far as JAX says it."""
    lines = fatal.splitlines()
    for line, after in itertools.pairwise(lines):
        if "stopped sending heartbeats" in line:
            return f"no heartbeat for {HEARTBEAT_SECONDS} s: process {after.strip()}"
    if "heartbeat timeout" in fatal:
        return f"no heartbeat for {HEARTBEAT_SECONDS} s"
    if "Failed to send RPC" in fatal or "Socket closed" in fatal or "DEADLINE_EXCEEDED" in fatal:
        return "the coordinator, process 0, is not heard of"
    return ""
