"""Any tab-separated tagging file: ``--data tagging:PATH``.

One token and its tag per line, with a tab between; an empty line ends a sentence. Every tenth sentence is test data.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from experiments.data.base import Batch, Dataset, check_range
from experiments.data.text import UNKNOWN, read_text

TEST = 10  # one sentence in so many
Sentence = list[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Sentences:
    """Padded sentences: "tokens", "tags" and "mask" [n, longest], "lengths" [n]; a longer sentence is cut."""

    tokens: list[np.ndarray]
    tags: list[np.ndarray]
    longest: int

    def __len__(self) -> int:
        return len(self.tokens)

    def gather(self, indices: np.ndarray, rng: np.random.Generator | None) -> Batch:
        batch: Batch = {name: np.zeros((len(indices), self.longest), np.int32) for name in ("tokens", "tags")}
        lengths = np.array([min(len(self.tokens[i]), self.longest) for i in indices], np.int32)
        for row, (index, length) in enumerate(zip(indices, lengths, strict=True)):
            batch["tokens"][row, :length] = self.tokens[index][:length]
            batch["tags"][row, :length] = self.tags[index][:length]
        mask = (np.arange(self.longest) < lengths[:, None]).astype(np.float32)
        return batch | {"mask": mask, "lengths": lengths}


def read_sentences(path: str) -> list[Sentence]:
    """Sentences as lists of (token, tag).

    Raises:
      ValueError: a line is not a token, a tab and a tag, or the file is no text.
    """
    sentences: list[Sentence] = [[]]
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            sentences.append([])
            continue
        parts = line.split("\t")
        if len(parts) != 2 or not all(parts):
            raise ValueError(f"{path}, line {number}: {line[:60]!r} is not a token, a tab and a tag")
        sentences[-1].append((parts[0], parts[1]))
    return [sentence for sentence in sentences if sentence]


def load(path: str, *, longest: int = 128) -> Dataset:
    """Sentences of a tagging file, padded to `longest` tokens. The vocabulary is the tokens of the training part."""
    check_range("longest", longest, 1, 2**16)
    sentences = read_sentences(path)
    if len(sentences) < 2:
        raise ValueError(f"{path} has {len(sentences)} sentence, at least 2 are needed: one to train on, one to test with")
    test, train = sentences[::TEST], [s for number, s in enumerate(sentences) if number % TEST]
    vocabulary = (UNKNOWN, *sorted({token for sentence in train for token, _ in sentence} - {UNKNOWN}))
    tags = tuple(sorted({tag for sentence in sentences for _, tag in sentence}))
    if len(tags) < 2:
        raise ValueError(f"{path} has only the tag {tags[0]!r}, at least 2 are needed")
    token_ids = {token: index for index, token in enumerate(vocabulary)}
    tag_ids = {tag: index for index, tag in enumerate(tags)}

    def part(some: list[Sentence]) -> Sentences:
        return Sentences(
            [np.array([token_ids.get(token, 0) for token, _ in s], np.int32) for s in some],
            [np.array([tag_ids[tag] for _, tag in s], np.int32) for s in some],
            longest,
        )

    return Dataset(
        name="tagging",
        train=part(train),
        test=part(test),
        classes=tags,
        vocabulary=vocabulary,
        input_shape=(longest,),
        kind="tags",
    )
