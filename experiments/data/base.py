"""What the trainer sees of a data set: batches by number, so that a run can resume exactly where it stopped."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import grain
import numpy as np

from kernels.runtime.sizes import cdiv
from zoo.preprocessing import Preprocessing

Batch = dict[str, np.ndarray]


class Batches(Protocol):
    """An endless sequence of training batches. The same number always gives the same batch, in any process."""

    per_epoch: int

    def __getitem__(self, step: int) -> Batch: ...


class Source(Protocol):
    """Part of a data set: random access to its examples."""

    def __len__(self) -> int: ...

    def gather(self, indices: np.ndarray, rng: np.random.Generator | None) -> Batch:
        """The examples at `indices`, stacked. With `rng`, as training wants them (cropped, say); without, as they are."""
        ...


@dataclasses.dataclass(frozen=True)
class ArraySource:
    """Examples held in memory: one array per field, all with the same first dimension."""

    arrays: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def gather(self, indices: np.ndarray, rng: np.random.Generator | None) -> Batch:
        return {name: array[indices] for name, array in self.arrays.items()}


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise a ValueError where an option is outside its range."""
    if not low <= value <= high:
        raise ValueError(f"{name}: {value} given, {low} to {high} is needed")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Data to train on and data to test with.

    Attributes:
      name: as given to --data.
      kind: what an example is, and so which tasks there are for it.
      train, test: the two parts; no example is in both, and nothing is chosen by `test` but
        by --early-stop and --best.
      classes: names of the classes, in the order of their labels.
      input_shape: of one example, as the model sees it (after `preprocess`).
      vocabulary: what the token ids of a tagging data set stand for; for a language model, `classes` says that.
      preprocess: ``(batch, key, train) -> batch``, traced into the jitted step, so that it runs on the device: scaling,
        random shifts and flips. `key` is a jax.random.key.
      picture: ``images -> images`` from 0 to 1, of images that `preprocess` has normalized.
      preprocessing: how an image file becomes what the model sees of a test image; None where that is no image.
      adjustable: whether `load` takes another `preprocessing`.
      also_test: further test data, by what stands before their figures.
    """

    name: str
    train: Any
    test: Any
    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    preprocess: Callable[[Any, Any, bool], Any] = lambda batch, key, train: batch
    picture: Callable[[Any], Any] = lambda images: (images + 1) / 2
    vocabulary: tuple[str, ...] = ()
    kind: Literal["images", "text", "tags"] = "images"
    preprocessing: Preprocessing | None = None
    adjustable: bool = False
    also_test: Mapping[str, Source] = dataclasses.field(default_factory=dict)

    @property
    def skipped(self) -> list[str]:
        """Files that could not be read, and were left out, up to now."""
        return sorted({str(path) for part in (self.train, self.test) for path in getattr(part, "skipped", ())})

    def training_batches(self, batch_size: int, seed: int) -> Batches:
        """Shuffled anew in each epoch; the last, incomplete batch of an epoch is left out."""
        if hasattr(self.train, "training_batches"):
            return self.train.training_batches(batch_size, seed)
        return ShuffledBatches(self.train, batch_size, seed)

    def evaluation_batches(self, batch_size: int) -> Iterator[Batch]:
        """Every test example once, in order; see `evaluation_batches`."""
        if hasattr(self.test, "evaluation_batches"):
            return self.test.evaluation_batches(batch_size)
        return evaluation_batches(self.test, batch_size)


class ShuffledBatches:
    """Batches of a source in an order drawn anew for each epoch from (seed, epoch)."""

    def __init__(self, source: Source, batch_size: int, seed: int):
        if not 1 <= batch_size <= len(source):
            raise ValueError(f"batch_size: {batch_size} given, the training data has {len(source)} examples (1 to that)")
        self.source, self.batch_size, self.seed = source, batch_size, seed
        self.per_epoch = len(source) // batch_size

    @functools.lru_cache(maxsize=2)  # noqa: B019 (lives as long as the run)
    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.source))

    def __getitem__(self, step: int) -> Batch:
        return self.part(step, 0, 1)

    def part(self, step: int, index: int, count: int) -> Batch:
        """Of a batch, the index-th of count equal parts; a source with `gather_part` reads no other examples for it."""
        epoch, position = divmod(step, self.per_epoch)
        indices = self._order(epoch)[position * self.batch_size : (position + 1) * self.batch_size]
        # An array source draws nothing, and making a generator takes as long as its gathering.
        rng = None if isinstance(self.source, ArraySource) else np.random.default_rng((self.seed, step, 1))
        if count > 1 and hasattr(self.source, "gather_part"):
            size = self.batch_size // count
            return self.source.gather_part(indices, rng, slice(index * size, (index + 1) * size))
        return cut(self.source.gather(indices, rng), index, count)


def cut(batch: Batch, index: int, count: int) -> Batch:
    """The index-th of count equal parts of a batch."""
    return batch if count == 1 else {name: np.split(array, count)[index] for name, array in batch.items()}


def evaluation_batches(source: Source, batch_size: int) -> Iterator[Batch]:
    """Every example once, in order. The last batch is filled up with repeats; "weight" is 1 for examples and 0 for those."""
    for start in range(0, len(source), batch_size):
        indices = np.arange(start, start + batch_size)
        batch = source.gather(np.minimum(indices, len(source) - 1), None)
        yield batch | {"weight": (indices < len(source)).astype(np.float32)}


class _Groups:
    """Consecutive batches in lists, as grain wants them: with a length."""

    def __init__(self, batches: Batches, steps: int, size: int, part: tuple[int, int]):
        self._batches, self._steps, self._size, self._part = batches, steps, size, part

    def __len__(self) -> int:
        return cdiv(self._steps, self._size)

    def __getitem__(self, number: int) -> list[Batch]:
        first = int(number) * self._size
        return [self._one(step) for step in range(first, min(first + self._size, self._steps))]

    def _one(self, step: int) -> Batch:
        if isinstance(self._batches, ShuffledBatches):
            return self._batches.part(step, *self._part)
        return cut(self._batches[step], *self._part)


class Feed:
    """Batches from a grain iterator over groups of them, with a position that can be saved and returned to."""

    def __init__(self, groups: Any):
        self._groups, self._taken = groups, 0
        self._group: list[Batch] = []
        self._before = groups.get_state()  # of the group that is being given out

    def __iter__(self) -> Feed:
        return self

    def __next__(self) -> Batch:
        if self._taken == len(self._group):
            self._before, self._group, self._taken = self._groups.get_state(), next(self._groups), 0
        self._taken += 1
        return self._group[self._taken - 1]

    def get_state(self) -> dict[str, Any]:
        """The position after the batch given out last; JSON can hold it."""
        return {"groups": self._before, "taken": self._taken}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a position."""
        self._groups.set_state(state["groups"])
        self._before, self._taken = state["groups"], state["taken"]
        self._group = next(self._groups) if self._taken else []


# Batches of data in memory are cut out in less time than a thread of grain's takes to hand one over: they come by sixteen.
IN_MEMORY_GROUP = 16


def reader(batches: Batches, steps: int, *, threads: int = 2, ahead: int = 4, part: tuple[int, int] = (0, 1)) -> Feed:
    """The first `steps` batches, read by grain's threads while the device works.

    Args:
      part: (index, count): of each batch, this process gets the index-th of count equal parts.
    """
    size = IN_MEMORY_GROUP if isinstance(getattr(batches, "source", None), ArraySource) else 1
    options = grain.ReadOptions(num_threads=threads if size == 1 else 1, prefetch_buffer_size=ahead)
    return Feed(iter(grain.MapDataset.source(_Groups(batches, steps, size, part)).to_iter_dataset(options)))


def stratified_split(labels: Sequence[int] | np.ndarray, every: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices for training and for the test: of each class, one in `every` is for the test, chosen by `seed`.

    A class of one example is for training: what was never seen cannot be tested.
    """
    labels = np.asarray(labels)
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    test = np.concatenate([row[::every] if len(row) > 1 else row[:0] for row in rows])
    mask = np.zeros(len(labels), bool)
    mask[test] = True
    return np.flatnonzero(~mask), np.flatnonzero(mask)
