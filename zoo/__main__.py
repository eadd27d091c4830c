"""`python -m zoo list [PATTERN]`, `python -m zoo info NAME`, `python -m zoo predict NAME IMAGE --weights WEIGHTS` and
`python -m zoo predict RUN IMAGE`."""

from __future__ import annotations

import argparse
import pathlib
import re
import sys
import textwrap
from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx

import zoo
from zoo.weights.published import imagenet_classes


def _abstract(name: str):
    return nnx.eval_shape(lambda: zoo.create_model(name))


def _list(pattern: str) -> None:
    names = zoo.list_models(pattern)
    if not names:
        raise ValueError(f"pattern: no model matches {pattern!r}; known models: {', '.join(zoo.list_models())}")
    print(f"{'name':<18} {'family':<9} {'parameters':>11} {'GMACs':>6} {'input':<9} paper")
    for info in map(zoo.model_info, names):
        shape, macs = "x".join(map(str, info.input_shape)), info.macs / 1e9
        figures = f"{info.params:>11,} {macs:>6.{4 if macs < 10 else 3}f}"
        print(f"{info.name:<18} {info.family:<9} {figures} {shape:<9} {_cited(info.paper)}")


def _cited(paper: str) -> str:
    """A paper's first author and year, where it begins with authors and year; its title stands in `info`."""
    found = re.match(r"(.*?) (\d{4}),", paper)
    if found is None:
        return paper
    first = re.split(r",| et al\.", found[1])[0]
    return f"{first}{' et al.' if first != found[1] else ''} {found[2]}"


def _info(name: str) -> None:
    info = zoo.model_info(name)
    print(textwrap.fill(f"{info.name}: {info.paper}", 80, break_on_hyphens=False))
    print(f"input {' x '.join(map(str, info.input_shape))}, {info.num_classes} outputs")
    print(textwrap.fill(f"weights: {', '.join(info.weights) or 'none published'}", 80, break_on_hyphens=False) + "\n")
    dtype = jnp.int32 if info.family == "recurrent" and len(info.input_shape) == 1 else jnp.float32
    rows = [("layer", "kind", "output", "parameters", "multiply-adds")]
    for row in zoo.summarize(_abstract(name), info.input_shape, dtype):
        shape = "x".join(map(str, row.output_shape))
        rows.append((row.path or "total", row.kind, shape, f"{row.params:,}", f"{row.macs:,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        print(" ".join(f"{cell:{'<' if n < 3 else '>'}{widths[n]}}" for n, cell in enumerate(cells)))


BAR = 30  # characters of a probability of one


def _open(name: str, weights: str | None, cache: str | None, checkpoint: str | None) -> nnx.Module:
    """The model to predict with, all of its weights loaded."""
    path = pathlib.Path(name)
    if name not in zoo.list_models() and (name.startswith("hf://") or path.suffix == ".safetensors" or path.exists()):
        if weights is not None:
            raise ValueError(f"--weights: {weights} given, and {name} has its own")
        return zoo.load_model(name, cache=cache, checkpoint=checkpoint)
    if checkpoint is not None:
        raise ValueError(f"--checkpoint: {checkpoint} given, and {name} is no run")
    info = zoo.model_info(name)
    if weights is None:
        published = f"; torchvision://{info.weights[0]} is published" if info.weights else ""
        raise ValueError(f"--weights: needed, since {name} without is untrained{published}")
    model = zoo.create_model(name)
    zoo.load_weights(model, weights, adapt=False, cache=cache)  # an adapted classifier would know nothing
    return model


def _names(choice: str | None) -> Sequence[str] | None:
    if choice is None:
        return None
    if choice == "imagenet":
        return imagenet_classes()
    try:
        return pathlib.Path(choice).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text in UTF-8"
        raise ValueError(f"--classes: {choice} given, 'imagenet' or a file of a name per line is needed ({reason})") from None


def _predict(options: argparse.Namespace) -> None:
    classes = _names(options.classes)
    model = _open(options.model, options.weights, options.cache, options.checkpoint)
    block = "█" if (sys.stdout.encoding or "").lower().startswith("utf") else "#"
    for image in options.images:
        found = zoo.predict(model, image, options.k, classes=classes)
        if len(options.images) > 1:
            print(f"{image}:")
        width = max(len(prediction.name) for prediction in found)
        for name, probability in found:
            print(f"{name:<{width}}  {probability:>7.2%}  {block * round(BAR * probability)}".rstrip())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m zoo", description="The models in the zoo.")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="list the models, one per line")
    listing.add_argument("pattern", nargs="?", default="*", help="shell-style pattern, such as 'resnet*'")
    info = commands.add_parser("info", help="show a model's parameters, multiply-adds and layers")
    info.add_argument("name")
    predict = commands.add_parser("predict", help="classify images")
    predict.add_argument(
        "model", metavar="MODEL", help="a name from `python -m zoo list`, a run, a saved model, or hf://owner/name"
    )
    predict.add_argument("images", metavar="IMAGE", nargs="+", help="image files")
    predict.add_argument(
        "--weights", help="torchvision://NAME, hf://owner/repo, or a file (.safetensors, or written by torch.save)"
    )
    predict.add_argument(
        "--checkpoint", help="of a run: newest, best (selected by the run's --best), or a step (its final weights)"
    )
    predict.add_argument("--cache", help="folder for downloads ($ZOO_CACHE, or a folder in the user's cache)")
    predict.add_argument("-k", type=int, default=5, help="number of classes to show (5)")
    predict.add_argument("--classes", help="class names if the weights have none: imagenet, or a file with one per line")
    options = parser.parse_args(arguments)
    try:
        if options.command == "list":
            _list(options.pattern)
        elif options.command == "info":
            _info(options.name)
        else:
            _predict(options)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if isinstance(error, BrokenPipeError):
            sys.stderr.close()
            return 0
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
