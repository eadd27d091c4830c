"""Any text file as characters for a language model: ``--data text:PATH``."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from experiments.data.base import Dataset, check_range
from experiments.data.sequences import Streams, Windows

UNKNOWN = "\N{REPLACEMENT CHARACTER}"  # stands for every character outside the vocabulary; always the first
TEST = 0.1  # the end of the file


def encode(text: str, vocabulary: Sequence[str]) -> np.ndarray:
    """The index of each character in `vocabulary`, uint32; 0, the unknown character's, for those that are not in it."""
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    table = np.zeros(0x110000, np.uint32)
    for index, character in enumerate(vocabulary):
        table[ord(character)] = index
    return table[points]


def decode(ids: Sequence[int] | np.ndarray, vocabulary: Sequence[str]) -> str:
    return "".join(vocabulary[int(i)] for i in ids)


def read_text(path: str | pathlib.Path) -> str:
    """A UTF-8 file's text.

    Raises:
      ValueError: it is not there, is empty, or is not text.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise ValueError(f"{path} is not a file")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text: byte {error.start} is not UTF-8") from error
    if "\0" in text:
        raise ValueError(f"{path} is not text: it holds zero bytes")
    if not text.strip():
        raise ValueError(f"{path} is empty")
    return text


def language_data(
    name: str, train: Sequence[np.ndarray], test: np.ndarray, vocabulary: tuple[str, ...], length: int
) -> Dataset:
    """Training files and test tokens as a data set; training reads pieces of `length`, evaluation windows of 1024."""
    check_range("length", length, 1, 2**16)
    return Dataset(
        name=name,
        train=Streams(train, length),
        test=Windows({"tokens": test}, 1024, ahead=1),
        classes=vocabulary,
        input_shape=(length,),
        kind="text",
    )


def load(path: str, *, length: int = 128) -> Dataset:
    """The characters of a text file; its last tenth is the test data. The vocabulary is what occurs before it."""
    text = read_text(path)
    cut = round(len(text) * (1 - TEST))
    if len(text) - cut < 2:
        raise ValueError(f"{path} has only {len(text)} characters, of which a tenth cannot be kept for the test")
    vocabulary = (UNKNOWN, *sorted(set(text[:cut]) - {UNKNOWN}))
    return language_data("text", [encode(text[:cut], vocabulary)], encode(text[cut:], vocabulary), vocabulary, length)
