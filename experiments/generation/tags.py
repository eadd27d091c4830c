"""A text coloured by the tags of its characters or words, in the terminal and as HTML."""

from __future__ import annotations

import argparse
import html
import itertools
import pathlib
import re
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from flax import nnx
from rich.console import Console
from rich.text import Text

import zoo
from experiments.data.sequences import Windows
from experiments.data.snippets import LONGEST
from experiments.data.text import read_text
from experiments.errors import UserError
from experiments.flags import output
from experiments.training.restore import Run

EXAMPLE = "--file train.py --out page.html"
# One colour per tag; the first, of the most common tag, is that of the page. Dark enough to be read on white.
COLOURS = ("#24292f", "#a626a4", "#0550ae", "#986801", "#22863a", "#6a737d", "#b31d28", "#005cc5", "#b08800", "#5a32a3")


def split_tokens(text: str, vocabulary: Sequence[str]) -> list[str]:
    """The text as the tagger's tokens: characters if the vocabulary has nothing longer, else words and what separates them."""
    if max(map(len, vocabulary)) == 1:
        return list(text)
    return re.findall(r"\s+|\w+|[^\w\s]", text)


def predict(model: zoo.Tagger, tokens: np.ndarray, length: int = 768, context: int = 128, batch_size: int = 8) -> np.ndarray:
    """The tag of each token id, [n] to [n], each seen with at least `context` tokens on both sides where there are such."""
    if len(tokens) <= LONGEST:
        context = 16  # a short text stands amid zeros, as in training
    length = min(length, len(tokens))
    graph, state = nnx.split(model)
    tags = jax.jit(lambda state, x: nnx.merge(graph, state)(x).argmax(-1), compiler_options=zoo.compiler_options())
    windows = Windows({"tokens": tokens}, length, context)
    found = []
    for start in range(0, len(windows), batch_size):
        indices = np.minimum(np.arange(start, start + batch_size), len(windows) - 1)  # the last batch is filled up
        rows = np.asarray(tags(state, windows.gather(indices, None)["tokens"]))
        found.append(rows[: len(windows) - start, context : context + length].ravel())
    return np.concatenate(found)[: len(tokens)]


def runs(tokens: Sequence[str], tags: np.ndarray) -> Iterator[tuple[str, int]]:
    """Neighbours with the same tag joined: (text, tag)."""
    for tag, group in itertools.groupby(zip(tokens, tags, strict=True), key=lambda pair: pair[1]):
        yield "".join(token for token, _ in group), int(tag)


def colour(tag: int) -> str:
    return COLOURS[tag % len(COLOURS)]


def as_html(title: str, pieces: Sequence[tuple[str, int]], classes: Sequence[str]) -> str:
    """A self-contained page."""
    styles = "\n".join(f".t{i} {{ color: {colour(i)} }}" for i in range(len(classes)))
    legend = " ".join(f'<span class="t{i}">{html.escape(name)}</span>' for i, name in enumerate(classes))
    body = "".join(f'<span class="t{tag}">{html.escape(text)}</span>' for text, tag in pieces)
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n<style>\n'
        f"body {{ margin: 2em; background: #fff; color: #24292f }}\npre {{ font: 13px/1.45 monospace }}\n{styles}\n</style>\n"
        f"<p>{legend}</p>\n<pre>{body}</pre>\n</html>\n"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--file", type=pathlib.Path, help="the text file to colour")
    source.add_argument("--prompt", help="the text itself")
    parser.add_argument("--out", type=output, help="write HTML to this file, besides the terminal")


def generate(run: Run, options: argparse.Namespace) -> None:
    """Show the file, or the prompt, in the colours of its tags."""
    try:
        text = read_text(options.file) if options.file else options.prompt
    except ValueError as error:
        raise UserError(f"--file: {error}") from error
    if not text:
        raise UserError("--prompt: empty, at least one character is needed")
    classes, vocabulary = run.dataset.classes, run.dataset.vocabulary
    tokens = split_tokens(text, vocabulary)
    spoken = [i for i, token in enumerate(tokens) if max(map(len, vocabulary)) == 1 or not token.isspace()]
    ids = {token: number for number, token in enumerate(vocabulary)}
    tags = np.zeros(len(tokens), int)
    tags[spoken] = predict(run.task.model(run.stepper.state), np.array([ids.get(tokens[i], 0) for i in spoken], np.int32))
    pieces = list(runs(tokens, tags))
    shown = Text(end="")
    for piece, tag in pieces:
        shown.append(piece, style=colour(tag) if tag else "")
    console = Console()
    console.print(Text(" ").join(Text(name, style=colour(i)) for i, name in enumerate(classes)))
    console.print(shown, soft_wrap=True)
    if options.out:
        options.out.write_text(as_html(str(options.file or "prompt"), pieces, classes), encoding="utf-8")
        console.print(f"written to {options.out}", highlight=False, soft_wrap=True)
