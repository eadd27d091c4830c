"""The Python standard library's source files with each character labelled by the kind of its token.

The files and the test part are those of `pysource`; the labels come from Python's own tokenize module.
"""

from __future__ import annotations

import io
import keyword
import tokenize

import numpy as np

from experiments.data.base import Dataset, check_range
from experiments.data.pysource import VOCABULARY, texts
from experiments.data.sequences import Windows
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


def load(*, length: int = 256, context: int = 128) -> Dataset:
    """Every character of the files with its label.

    Args:
      length: characters per training example, cut at random places.
      context: in evaluation, characters shown before and after each window of 768, and not counted, so that every test
        character is judged once and with its surroundings known.
    """
    check_range("length", length, 1, 2**16)
    check_range("context", context, 0, 2**16)
    train, test = ("".join(part) for part in texts())
    fields = lambda part: {"tokens": encode(part, VOCABULARY).astype(np.uint8), "tags": label(part)}
    return Dataset(
        name="pytokens",
        train=Windows(fields(train), length, jitter=True),
        test=Windows(fields(test), 768, context=context),
        classes=TAGS,
        vocabulary=VOCABULARY,
        input_shape=(length,),
        kind="tags",
    )
