"""What a training run leaves in its folder: the finished model, and the checkpoints on the way there."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import logging
import math
import pathlib
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from zoo.weights.pth import WeightsFileError

MODEL = "model.safetensors"
CHECKPOINTS = "checkpoints"
LARGEST = 2**31  # bytes that a checkpoint may claim, whatever its size on the disk
MOST_SHRUNK = 16  # times as many bytes as on the disk
METADATA = "_CHECKPOINT_METADATA"  # which Orbax puts into every checkpoint


def weights_in(folder: pathlib.Path) -> pathlib.Path:
    """The finished model in a folder, else its newest checkpoint.

    Args:
      folder: of a model or of a run, the checkpoints of a run, or one of them.

    Raises:
      ValueError: it holds neither.
    """
    if (folder / MODEL).is_file():
        return folder / MODEL
    if (folder / METADATA).is_file():
        return folder
    saved = [
        file.parent
        for parent in (folder, folder / CHECKPOINTS)
        for file in parent.glob(f"*/{METADATA}")
        if file.parent.name.isdigit()
    ]
    if not saved:
        raise ValueError(f"source: {folder} holds neither {MODEL} nor the checkpoints of a run")
    return max(saved, key=lambda path: int(path.name))


def checkpoint_in(folder: pathlib.Path, which: str | int) -> pathlib.Path:
    """A checkpoint of a run.

    Args:
      which: "newest", "best" (by the figure that the run was told to judge by), or its step.

    Raises:
      ValueError: the run has no such checkpoint; the message lists those that it has.
    """
    ranks = {int(file.parent.name): _rank(file.parent) for file in (folder / CHECKPOINTS).glob(f"[0-9]*/{METADATA}")}
    steps = {str(step): step for step in sorted(ranks)}
    if ranks:
        steps["newest"] = max(ranks)
    if any(ranks.values()):
        steps["best"] = max(ranks, key=lambda step: ranks[step])
    if str(which) not in steps:
        raise ValueError(f"checkpoint: {which} given, {folder} has {', '.join(steps) or 'none'}")
    return folder / CHECKPOINTS / str(steps[str(which)])


def _rank(checkpoint: pathlib.Path) -> float:
    """The highest is the best one's; 0 where the run judges by no figure."""
    try:
        with (checkpoint / "metrics" / "metrics").open("rb") as file:
            return float(json.loads(file.read(10_000)).get("rank", 0))
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return 0.0


def read_run_checkpoint(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """The network in one checkpoint by its variables' paths, with the averaged parameters where the run keeps such.

    Raises:
      WeightsFileError: damaged, or no checkpoint of a run.
    """
    reason = ""
    with one_error():
        try:
            values = _read(folder)
        except Exception as error:  # damage shows as almost any error of the readers below
            reason = " ".join(str(error).split())[:120] or type(error).__name__
        if reason:
            let_end()
    if reason:
        raise WeightsFileError(f"source: {folder}: damaged, or no checkpoint of a run ({reason})")
    return _network(values)


def _read(folder: pathlib.Path) -> dict[str, np.ndarray]:
    from orbax.checkpoint import v1 as orbax  # Flax brings it

    metadata = orbax.metadata(folder.absolute())
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    leaves: Any = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here) for name, leaf in metadata.metadata.items()
    }
    # Only zeros shrink much, so that a network's checkpoint is not far from this size on the disk.
    claimed = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves.values())
    stored = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if claimed > max(LARGEST, MOST_SHRUNK * stored):
        raise ValueError(f"it claims arrays of {claimed:,} bytes and has {stored:,}")
    values = {name: np.asarray(value) for name, value in orbax.load(folder.absolute(), leaves).items()}
    if digest(sorted(values.items())) != metadata.custom_metadata["digest"]:
        raise ValueError("its content does not match its digest")
    return values


@contextlib.contextmanager
def one_error() -> Iterator[None]:
    """While Orbax reads what may be damaged, and what it leaves is collected: of several reads that fail it raises the first,
    and each of the others would put a traceback on standard error."""
    logger, hooks = logging.getLogger("asyncio"), (sys.unraisablehook, sys.excepthook)
    disabled = logger.disabled
    logger.disabled, sys.unraisablehook, sys.excepthook = True, lambda _: None, lambda *_: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = disabled
        sys.unraisablehook, sys.excepthook = hooks


def let_end() -> None:
    """After an error in `one_error`: give the other reads time to end, and collect what is left of them."""
    time.sleep(0.1)
    gc.collect()


def digest(arrays: Iterable[tuple[str, np.ndarray]]) -> str:
    """SHA-256 over names, shapes, dtypes and bytes of (name, array) pairs in the order of the names."""
    total = hashlib.sha256()
    for name, array in arrays:
        value = np.ascontiguousarray(array)
        total.update(f"{name} {value.dtype} {value.shape}\n".encode())
        total.update(value.reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def _network(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parameters and running statistics, without the optimizer's state, random streams (all that is uint32) and what a
    language model carries on from batch to batch beside itself."""
    part = "ema/" if any(name.startswith("ema/") for name in values) else "params/"
    prefix = "model/" if all(n.startswith(f"{part}model/") for n in values if n.startswith(part)) else ""
    found = {}
    for name, value in values.items():
        head, _, path = name.partition("/")
        if f"{head}/" in (part, "rest/") and path.startswith(prefix) and value.dtype != np.uint32:
            found[path.removeprefix(prefix).replace("/", ".")] = value
    return found
