"""The Python standard library's source files with each character labelled by the kind of its token.

The files and the test part are those of `pysource`; the labels come from Python's own tokenize module. Some of the examples are
short pieces of code with nothing around, as a person types them: what no window out of a file looks like.
"""

from __future__ import annotations

import dataclasses
import io
import keyword
import tokenize

import numpy as np

from experiments.data.base import Batch, Dataset, check_range
from experiments.data.pysource import VOCABULARY, texts
from experiments.data.sequences import Windows
from experiments.data.snippets import LONGEST, snippets
from experiments.data.text import encode

TAGS = ("space", "keyword", "name", "number", "string", "comment", "operator")
_KINDS = {tokenize.NUMBER: "number", tokenize.STRING: "string", tokenize.COMMENT: "comment", tokenize.OP: "operator"}
for _part in ("START", "MIDDLE", "END"):  # from Python 3.12 on, an f-string is several tokens
    if hasattr(tokenize, f"FSTRING_{_part}"):
        _KINDS[getattr(tokenize, f"FSTRING_{_part}")] = "string"


def label(text: str) -> np.ndarray:
    """The index in TAGS of each character's token kind, uint8; what is in no token is space.

    Raises:
      ValueError: the text is not Python.
    """
    starts = np.cumsum([0, *map(len, io.StringIO(text))])  # of each line, as tokenize counts lines
    tags = np.zeros(len(text), np.uint8)
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            kind = _KINDS.get(token.type)
            if token.type == tokenize.NAME:
                kind = "keyword" if keyword.iskeyword(token.string) else "name"
            if kind is not None:
                (first_line, first), (last_line, last) = token.start, token.end
                tags[starts[first_line - 1] + first : starts[last_line - 1] + last] = TAGS.index(kind)
    except (tokenize.TokenError, SyntaxError) as error:
        raise ValueError(f"not Python: {error.args[0]}") from error
    return tags


@dataclasses.dataclass(frozen=True)
class Pieces:
    """Short texts with `around` positions of zeros on either side, in rows as long as the longest; only the texts count."""

    tokens: list[np.ndarray]
    tags: list[np.ndarray]
    around: int = 16

    def __len__(self) -> int:
        return len(self.tokens)

    def gather(self, indices: np.ndarray, rng: np.random.Generator | None) -> Batch:
        starts = np.full(len(indices), self.around)
        return self.placed(indices, starts, LONGEST + 1 + 2 * self.around)

    def placed(self, indices: np.ndarray, starts: np.ndarray, length: int) -> Batch:
        """The texts in rows of `length`, each from its own position on."""
        fields = {name: np.zeros((len(indices), length), np.int32) for name in ("tokens", "tags")}
        mask = np.zeros((len(indices), length), np.float32)
        for row, (index, start) in enumerate(zip(indices, starts, strict=True)):
            place = slice(start, min(start + len(self.tokens[index]), length))
            for name, values in (("tokens", self.tokens[index]), ("tags", self.tags[index])):
                fields[name][row, place] = values[: place.stop - start]
            mask[row, place] = 1
        return {**fields, "mask": mask}


@dataclasses.dataclass(frozen=True)
class Mixed:
    """Windows out of a long text, of which a share, drawn at random in training, gives its place to a short text."""

    windows: Windows
    pieces: Pieces
    share: float

    def __len__(self) -> int:
        return len(self.windows)

    def gather(self, indices: np.ndarray, rng: np.random.Generator | None) -> Batch:
        batch = self.windows.gather(indices, rng)
        if rng is None:
            return batch
        rows = np.flatnonzero(rng.random(len(indices)) < self.share)
        chosen, length = rng.integers(len(self.pieces), size=len(rows)), self.windows.length
        room = np.array([max(0, length - len(self.pieces.tokens[index])) for index in chosen], int)
        short = self.pieces.placed(chosen, rng.integers(0, room + 1), length)
        for name, values in short.items():
            batch[name][rows] = values
        return batch


def _pieces(texts: list[str], seed: int, share: float) -> Pieces:
    """Short pieces of the texts, out of a share of their blocks, that are Python by themselves."""
    rng, tokens, tags = np.random.default_rng(seed), [], []
    for text in texts:
        for piece in snippets(text, rng, share):
            try:
                tags.append(label(piece))
            except ValueError:  # cut out of a longer line
                continue
            tokens.append(encode(piece, VOCABULARY).astype(np.uint8))
    return Pieces(tokens, tags)


def load(*, length: int = 256, context: int = 128, short: float = 0.3) -> Dataset:
    """Every character of the files with its label.

    Args:
      length: characters per training example, cut at random places.
      context: in evaluation, characters shown before and after each window of 768, and not counted, so that every test
        character is judged once and with its surroundings known.
      short: share of the training examples that are short pieces instead; those of the test files are evaluated as "short".
    """
    check_range("length", length, 1, 2**16)
    check_range("context", context, 0, 2**16)
    check_range("short", short, 0, 1)
    train, test = texts()
    fields = lambda part: {"tokens": encode("".join(part), VOCABULARY).astype(np.uint8), "tags": label("".join(part))}
    windows = Windows(fields(train), length, jitter=True)
    return Dataset(
        name="pytokens",
        train=Mixed(windows, _pieces(train, 0, 0.4), short) if short else windows,
        test=Windows(fields(test), 768, context=context),
        also_test={"short": _pieces(test, 1, 1.0)} if short else {},
        classes=TAGS,
        vocabulary=VOCABULARY,
        input_shape=(length,),
        kind="tags",
    )
