"""Text from a character language model, streamed as it is sampled."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import TextIO

import jax
import jax.numpy as jnp
from flax import nnx

import zoo
from experiments.data.text import decode, encode
from experiments.errors import UserError
from experiments.flags import LARGEST_SEED, SEED, number, output, whole
from experiments.training.restore import Run


def sample(
    logits: jax.Array, key: jax.Array, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> jax.Array:
    """Token ids [...] drawn from logits [..., vocabulary].

    Args:
      key: a jax.random.key.
      temperature: divides the logits; 0 takes the most likely token.
      top_k: only the so many most likely tokens are drawn from.
      top_p: only the smallest set of most likely tokens whose probabilities reach this sum is drawn from (nucleus sampling,
        Holtzman et al. 2020); applied after the temperature and top_k.

    Raises:
      ValueError: a value outside its range.
    """
    if temperature < 0:
        raise ValueError(f"temperature: {temperature} given, 0 or more is needed")
    if top_k is not None and not 1 <= top_k <= logits.shape[-1]:
        raise ValueError(f"top_k: {top_k} given, 1 to {logits.shape[-1]} (the vocabulary) is needed")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p: {top_p} given, above 0 and at most 1 is needed")
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits.astype(jnp.float32) / temperature
    order = jnp.argsort(logits, -1, descending=True)
    ranked = jnp.take_along_axis(logits, order, -1)
    if top_k is not None:
        ranked = jnp.where(jnp.arange(ranked.shape[-1]) < top_k, ranked, -jnp.inf)
    if top_p is not None:
        probabilities = jax.nn.softmax(ranked, -1)
        mass_before = jnp.cumsum(probabilities, -1) - probabilities  # 0 for the first, which always stays
        ranked = jnp.where(mass_before < top_p, ranked, -jnp.inf)
    drawn = jax.random.categorical(key, ranked, -1)
    return jnp.take_along_axis(order, drawn[..., None], -1)[..., 0]


def characters(
    model: zoo.LanguageModel,
    vocabulary: Sequence[str],
    prompt: str,
    seed: int = 0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Iterator[str]:
    """An endless continuation of `prompt`, character by character. The same seed gives the same text.

    Raises:
      ValueError: a character of the prompt is not in the vocabulary, or a sampling value is outside its range.
    """
    unknown = sorted(set(prompt) - set(vocabulary[1:]))
    if unknown:
        raise ValueError(f"prompt: {unknown[0]!r} is not among the {len(vocabulary) - 1} characters that the model knows")
    graph, state = nnx.split(model)

    def draw(logits: jax.Array, key: jax.Array) -> jax.Array:
        # The stand-in for unknown characters (number 0) is never drawn.
        return 1 + sample(logits[:, 1:], key, temperature, top_k, top_p)

    @jax.jit(compiler_options=zoo.compiler_options())
    def read(state, tokens, key):
        logits, carried = nnx.merge(graph, state)(tokens, return_state=True)
        return draw(logits[:, -1], key), carried

    @jax.jit(compiler_options=zoo.compiler_options())
    def step(state, token, carried, key):
        logits, carried = nnx.merge(graph, state).step(token, carried)
        return draw(logits, key), carried

    key = jax.random.key(seed)
    token, carried = read(state, jnp.asarray(encode(prompt, vocabulary).astype("int32"))[None], key)
    count = 0
    while True:
        yield decode(token, vocabulary)
        count += 1
        token, carried = step(state, token, carried, jax.random.fold_in(key, count))


EXAMPLE = '--prompt "def " --length 500 --temperature 0.7'
MOST = 10**7  # characters in one call, hours of work


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompt", default="\n", help="how the text begins")
    parser.add_argument("--length", type=whole(1), default=1000, help="characters to write after the prompt (%(default)s)")
    parser.add_argument("--num", type=whole(1), default=1, help="texts to write, with seeds SEED, SEED + 1, ... (%(default)s)")
    parser.add_argument(
        "--temperature", type=number(0), default=0.7, help="0: the likeliest text; 1: as in the data (%(default)s)"
    )
    parser.add_argument("--top-k", type=whole(1), help="draw from the so many most likely characters only")
    parser.add_argument("--top-p", type=number(0, 1, above=True), help="draw from the likeliest that make up this probability")
    parser.add_argument("--seed", type=SEED, default=0, help="of what is drawn (%(default)s)")
    parser.add_argument("--out", type=output, help="write to this file, and not to the terminal")


def generate(run: Run, options: argparse.Namespace) -> None:
    """Write `options.num` texts to the terminal or a file, each character as soon as it is sampled."""
    if options.num * options.length > MOST:
        raise UserError(f"--num: {options.num} texts of {options.length} characters asked for, at most {MOST:,} are written")
    if options.seed + options.num > LARGEST_SEED:
        raise UserError(f"--seed: {options.seed} given, {LARGEST_SEED - options.num} is the largest for {options.num} texts")
    if not options.prompt:
        raise UserError("--prompt: empty, at least one character is needed")
    model = run.task.model(run.stepper.state)
    with contextlib.ExitStack() as stack:
        out: TextIO = stack.enter_context(options.out.open("w", encoding="utf-8")) if options.out else sys.stdout
        for number in range(options.num):
            stream = characters(
                model,
                run.dataset.classes,
                options.prompt,
                options.seed + number,
                options.temperature,
                options.top_k,
                options.top_p,
            )
            if options.num > 1:
                out.write(f"----- seed {options.seed + number} -----\n")
            out.write(options.prompt)
            for _ in range(options.length):
                out.write(next(stream))
                out.flush()
            out.write("\n")
