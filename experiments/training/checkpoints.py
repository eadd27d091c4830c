"""Checkpoints by Orbax: complete, asynchronous, checked by a digest; a damaged one is passed over for the one before."""

from __future__ import annotations

import concurrent.futures
import contextlib
import copy
import dataclasses
import hashlib
import json
import logging
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp
from orbax.checkpoint.multihost import get_barrier_sync_fn

from experiments.errors import UserError, explain
from experiments.training import processes
from experiments.training.interrupts import StoppedError
from experiments.training.mesh import to_host
from zoo.weights import runs

# That the processes of a run wait for each other in a save, which ends sooner where one of them has ended.
SAVE_SECONDS = 300
_policies = ocp.training.preservation_policies


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def named_leaves(tree: Any) -> dict[str, jax.Array]:
    """The arrays of a pytree by path, "params/conv1/kernel"; random keys as their data."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value")
    return {name(path): jax.random.key_data(leaf) if _is_key(leaf) else leaf for path, leaf in paths}


def digest(leaves: dict[str, jax.Array]) -> str:
    """SHA-256 over names, shapes, dtypes and bytes."""
    return runs.digest((name, to_host(leaf)) for name, leaf in sorted(leaves.items()))


def _digest_of_extra(arrays: str, extra: dict[str, Any]) -> str:
    """SHA-256 of all that is restored beside the arrays, tied to them."""
    return hashlib.sha256(json.dumps([arrays, extra], sort_keys=True).encode()).hexdigest()


def _shape(leaves: dict[str, Any], name: str) -> tuple[int, ...] | None:
    return leaves[name].shape if name in leaves else None


@contextlib.contextmanager
def _without_closed_loops() -> Iterator[None]:
    """Where one of Orbax's writes fails, the others find its event loop closed; TensorStore prints a traceback for each."""

    def closed(error: BaseException | None) -> bool:
        return isinstance(error, RuntimeError) and str(error) == "Event loop is closed"

    hooks = sys.excepthook, sys.unraisablehook
    sys.excepthook = lambda kind, error, trace: None if closed(error) else hooks[0](kind, error, trace)
    sys.unraisablehook = lambda unraisable: None if closed(unraisable.exc_value) else hooks[1](unraisable)
    try:
        yield
    finally:
        sys.excepthook, sys.unraisablehook = hooks


def _meet(*, key: str, timeout_ms: int) -> None:
    """Orbax's barrier, for a process whose write went well. After one that failed Orbax comes here too, with the error under
    way, and the others never do: they notice that this process has ended.
    """
    if sys.exc_info()[0] is None:
        get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)


class _AsyncOptions(ocp.options.AsyncOptions):
    """With a barrier of our own, for which Orbax's newer interface has no field."""

    def v0(self) -> Any:
        return dataclasses.replace(super().v0(), barrier_sync_fn=_meet)


class OtherRunError(ValueError):
    """A checkpoint with arrays of other names or shapes."""


class Checkpoints:
    """The checkpoints of one run: the two newest, the one of the lowest training loss, and, where the run judges itself by a
    figure on the test data, the best by that.
    """

    def __init__(self, directory: pathlib.Path, *, reading: bool = False):
        """`reading`: nothing in `directory` is changed, which a run may be writing to at this moment."""
        # Orbax logs every save, and every error that it also raises; what is raised reaches the user.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        self.directory = directory
        self._pending: int | None = None
        self._failed = False
        self._saving: concurrent.futures.Future[None] | None = None
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        context = ocp.Context(async_options=_AsyncOptions(timeout_secs=SAVE_SECONDS))
        try:
            if not reading:
                directory.mkdir(parents=True, exist_ok=True)
            elif not directory.is_dir():
                raise UserError(f"workdir: {directory.parent} holds no checkpoint yet")
            self._checkpointer = ocp.training.Checkpointer(
                directory.absolute(),
                save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
                preservation_policy=_policies.AnyPreservationPolicy(
                    [
                        _policies.LatestN(2),
                        _policies.BestN(get_metric_fn=lambda m: m["loss"], reverse=True, n=1),
                        _policies.BestN(get_metric_fn=lambda m: m.get("rank", 0), n=1),
                    ]
                ),
                cleanup_tmp_directories=not reading,
                context=context if processes.count() > 1 else None,
            )
        except OSError as error:
            raise UserError(f"workdir: {explain(error)}") from error
        self.last_good = max((c.step for c in self._checkpointer.checkpoints), default=None)

    def save(self, step: int, state: Any, extra: dict[str, Any], *, loss: float, rank: int = 0, wait: bool = False) -> None:
        """Start to save; the arrays are copied before this returns, so the state may be donated afterwards.

        The digest and all of Orbax's work are a thread's: hashing ResNet-18 and its optimizer takes as long as several steps.
        Of several processes each must enter Orbax, which has them meet, between the same two steps.

        Args:
          extra: anything JSON can hold, given back by `restore`.
          rank: the highest of all is kept.
          wait: return only when it is on disk.
        """
        leaves = named_leaves(state)
        self.wait()
        # Orbax may still read from the arrays when the next step gives their memory away, so it is handed copies.
        copies = {name: leaf.copy() for name, leaf in leaves.items()}
        jax.block_until_ready(copies)
        extra = copy.deepcopy(extra)  # the run goes on to change it while it is written
        self._pending = step
        if processes.count() == 1:
            self._saving = self._thread.submit(self._write, step, copies, extra, {"loss": loss, "rank": rank})
        else:
            with self._failing():
                self._write(step, copies, extra, {"loss": loss, "rank": rank})
        if wait:
            self.wait()

    def _write(self, step: int, leaves: dict[str, jax.Array], extra: dict[str, Any], metrics: dict[str, float]) -> None:
        arrays = digest(leaves)
        metadata = {"digest": arrays, "extra": extra, "extra_digest": _digest_of_extra(arrays, extra)}
        self._checkpointer.save_async(step, leaves, metrics=metrics, custom_metadata=metadata, overwrite=True)
        if processes.count() == 1:
            self._checkpointer.wait()

    def wait(self) -> None:
        """Block until the save under way is on disk.

        Raises:
          UserError: it could not be written.
        """
        with self._failing():
            saving, self._saving = self._saving, None
            if saving is not None:
                saving.result()
            self._checkpointer.wait()
        if self._pending is not None:
            self.last_good, self._pending = self._pending, None

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            step, self._pending, self._failed = self._pending, None, True
            raise UserError(f"checkpoint: step {step} could not be saved: {explain(error)}; {self.describe_last()}") from error

    def describe_last(self) -> str:
        return f"the last good checkpoint is of step {self.last_good}" if self.last_good else "there is no good checkpoint yet"

    def steps(self) -> list[int]:
        """Steps of which there is a checkpoint, oldest first."""
        return sorted(c.step for c in self._checkpointer.checkpoints)

    def step_of(self, which: str | int) -> int:
        """The step of a checkpoint.

        Args:
          which: "best", by the figure of --best, or a step.

        Raises:
          UserError: it is not there; the message lists those that are.
        """
        ranks = {c.step: (c.metrics or {}).get("rank", 0) for c in self._checkpointer.checkpoints}
        best = max(ranks, key=lambda step: ranks[step], default=0)
        known = [*(["best"] if ranks.get(best) else []), "newest", *map(str, sorted(ranks))]
        if str(which) not in known:
            hint = "; a run keeps a best one where --best names a figure" if which == "best" else ""
            raise UserError(f"checkpoint: {which} given, {self.directory} has {', '.join(known)}{hint}")
        return best if which == "best" else int(which)

    def restore(
        self, state: Any, shardings: list[Any], *, discard: bool, only: int | None = None
    ) -> tuple[Any, dict[str, Any], list[str]] | None:
        """The newest sound checkpoint, in the structure of `state`.

        Args:
          only: take that of this step and no other.
          discard: delete the damaged ones passed over, so that those steps can be saved again.

        Returns:
          The state, the `extra` it was saved with, and a line for each damaged one passed over; None if there is none.

        Raises:
          UserError: there are checkpoints, and not one of them can be read.
        """
        leaves, structure = jax.tree.flatten(state)
        names = list(named_leaves(state))
        abstract = {
            name: jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=sharding)
            for (name, data), sharding in zip(named_leaves(state).items(), shardings, strict=True)
        }
        passed_over = []
        for candidate in reversed(self.steps()) if only is None else (only,):
            reason = ""
            with runs.one_error():
                try:
                    loaded, extra = self._load(candidate, abstract)
                except OtherRunError as error:
                    reason = f"is of another run ({error})"
                except Exception as error:  # damage shows as almost any error of the readers below
                    reason = f"is damaged and passed over ({explain(error)[:120]})"
                if reason:
                    runs.let_end()
            if reason:
                passed_over.append(f"checkpoint of step {candidate} {reason}")
                continue
            values = [
                jax.random.wrap_key_data(loaded[name]) if _is_key(leaf) else loaded[name]
                for name, leaf in zip(names, leaves, strict=True)
            ]
            if discard and passed_over:
                self._delete_after(candidate)
            self.last_good = candidate
            return jax.tree.unflatten(structure, values), extra, passed_over
        if passed_over:
            raise UserError(f"checkpoint: none in {self.directory} can be taken; {'; '.join(passed_over)}")
        return None

    def _load(self, step: int, abstract: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The arrays of one checkpoint and its `extra`.

        Raises:
          OtherRunError: its arrays have other names or shapes.
          Exception: of any kind; it is damaged.
        """
        found = self._checkpointer.metadata(step)
        stored, metadata = {name: array.shape for name, array in found.metadata.items()}, found.custom_metadata
        wrong = [name for name in sorted({*stored, *abstract}) if stored.get(name) != _shape(abstract, name)]
        if wrong:
            there, here = (shapes or "absent" for shapes in (stored.get(wrong[0]), _shape(abstract, wrong[0])))
            raise OtherRunError(f"{wrong[0]} is {there} there and {here} in this model")
        loaded = self._checkpointer.load(step, abstract)
        if digest(loaded) != metadata["digest"]:
            raise ValueError("its content does not match its digest")
        if "extra_digest" not in metadata:
            raise ValueError("it was written by an earlier version of this program")
        if _digest_of_extra(metadata["digest"], metadata["extra"]) != metadata["extra_digest"]:
            raise ValueError("its step, data position or figures do not match their digest")
        if metadata["extra"]["step"] != step:
            raise ValueError(f"it says that it is of step {metadata['extra']['step']}")
        return loaded, metadata["extra"]

    def _delete_after(self, step: int) -> None:
        """In all processes: none looks at what there is before it is gone, nor is it deleted while another reads it."""
        multihost_utils.sync_global_devices("passed over")
        for newer in [s for s in self.steps() if s > step]:
            if jax.process_index() == 0:
                shutil.rmtree(self.directory / str(newer), ignore_errors=True)
        multihost_utils.sync_global_devices("deleted")
        self._checkpointer.reload()

    def __enter__(self) -> Checkpoints:
        self._hooks = contextlib.ExitStack()
        self._hooks.enter_context(_without_closed_loops())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        # The others of several processes do not come to the end of a save under way where this one alone fails, and it would
        # wait for them as they do for it: it ends with its line. What stops a run stops all of them, after the save.
        if kind is None or issubclass(kind, StoppedError) or processes.count() == 1:
            try:
                self.close()
            finally:
                self._hooks.close()

    def close(self) -> None:
        """Finish the save under way."""
        try:
            if not self._failed:
                self.wait()
        finally:
            self._thread.shutdown()
            # What failed was said, and Orbax would raise it once more.
            with contextlib.suppress(Exception) if self._failed else contextlib.nullcontext():
                self._checkpointer.close()
