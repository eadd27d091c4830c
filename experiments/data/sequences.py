"""Long sequences as batches: streams read in step with a carried state, and windows read on their own."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from experiments.data.base import Batch
from kernels.runtime.sizes import cdiv


@dataclasses.dataclass(frozen=True)
class Streams:
    """Token ids of several files, to be read as `batch_size` long streams, `length` steps at a time.

    Each epoch puts the files in another order, end to end, and cuts the whole into equal streams; the same row of successive
    batches goes on in the same stream, so that a recurrent state may be carried from one to the next.
    """

    files: Sequence[np.ndarray]
    length: int

    def __len__(self) -> int:
        """How many pieces there are, and so the largest batch size."""
        return max(0, sum(map(len, self.files)) - 1) // self.length

    def training_batches(self, batch_size: int, seed: int) -> StreamBatches:
        return StreamBatches(self, batch_size, seed)


class StreamBatches:
    """Batches by number: "tokens" [batch, length + 1], and "fresh" [batch], true where a new stream begins.

    The last token of a batch is the first of the next: it is a target here and an input there.
    """

    def __init__(self, streams: Streams, batch_size: int, seed: int):
        self.streams, self.batch_size, self.seed = streams, batch_size, seed
        self.per_epoch = (sum(map(len, streams.files)) // batch_size - 1) // streams.length
        if batch_size < 1 or self.per_epoch < 1:
            characters = sum(map(len, streams.files))
            raise ValueError(
                f"batch_size: {batch_size} streams of {streams.length} steps given, the training data has {characters} tokens"
            )

    @functools.lru_cache(maxsize=2)  # noqa: B019 (lives as long as the run)
    def _epoch(self, epoch: int) -> np.ndarray:
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.streams.files))
        text = np.concatenate([self.streams.files[i] for i in order])
        columns = len(text) // self.batch_size
        return text[: columns * self.batch_size].reshape(self.batch_size, columns)

    def __getitem__(self, step: int) -> Batch:
        epoch, position = divmod(step, self.per_epoch)
        start = position * self.streams.length
        tokens = self._epoch(epoch)[:, start : start + self.streams.length + 1]
        return {"tokens": tokens.astype(np.int32), "fresh": np.full(self.batch_size, position == 0)}


@dataclasses.dataclass(frozen=True)
class Windows:
    """One long sequence in windows of `length` steps, each beginning where the last one ends.

    Every field is an array of the same length. A window also shows `context` steps before and after its own, whose "mask"
    is 0: they are seen and not counted; beyond the ends of the sequence stand zeros. With `jitter`, training moves each
    window by less than a window's length, so that no two epochs cut at the same places.

    `ahead` more steps are shown at the end of each window, for a task that predicts the next one.
    """

    fields: dict[str, np.ndarray]
    length: int
    context: int = 0
    ahead: int = 0
    jitter: bool = False

    @property
    def _total(self) -> int:
        return len(next(iter(self.fields.values())))

    def __len__(self) -> int:
        return max(0, cdiv(self._total - self.ahead, self.length))

    def gather(self, indices: np.ndarray, rng: np.random.Generator | None) -> Batch:
        starts = np.asarray(indices) * self.length
        if self.jitter and rng is not None:
            last = max(0, self._total - self.length - self.ahead)
            starts = np.minimum(starts + rng.integers(0, self.length, len(starts)), last)
        offsets = np.arange(-self.context, self.length + self.context + self.ahead)
        positions = starts[:, None] + offsets
        inside = (positions >= 0) & (positions < self._total)
        batch = {
            name: np.where(inside, array[np.clip(positions, 0, self._total - 1)], 0).astype(np.int32)
            for name, array in self.fields.items()
        }
        steps = len(offsets) - self.ahead
        own = (offsets >= 0) & (offsets < self.length)
        batch["mask"] = (own[:steps] & inside[:, self.ahead :]).astype(np.float32)
        return batch
