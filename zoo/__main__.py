"""`python -m zoo list [PATTERN]` and `python -m zoo info NAME`."""

from __future__ import annotations

import argparse
import sys

import jax.numpy as jnp

import zoo


def _abstract(name: str):
    from flax import nnx

    return nnx.eval_shape(lambda: zoo.create_model(name))


def _list(pattern: str) -> None:
    names = zoo.list_models(pattern)
    if not names:
        raise ValueError(f"pattern: no model matches {pattern!r}; known models: {', '.join(zoo.list_models())}")
    print(f"{'name':<22} {'family':<10} {'parameters':>12} {'GMACs':>9}  {'input':<15} paper")
    for info in map(zoo.model_info, names):
        shape = "x".join(map(str, info.input_shape))
        print(f"{info.name:<22} {info.family:<10} {info.params:>12,} {info.macs / 1e9:>9.4f}  {shape:<15} {info.paper}")


def _info(name: str) -> None:
    info = zoo.model_info(name)
    print(f"{info.name}: {info.paper}")
    print(f"input {' x '.join(map(str, info.input_shape))}, {info.num_classes} outputs")
    print(f"weights: {', '.join(info.weights) or 'none published'}\n")
    print(f"{'layer':<28} {'kind':<16} {'output':<18} {'parameters':>12} {'multiply-adds':>15}")
    dtype = jnp.int32 if info.family == "recurrent" and len(info.input_shape) == 1 else jnp.float32
    for row in zoo.summarize(_abstract(name), info.input_shape, dtype):
        shape = "x".join(map(str, row.output_shape))
        print(f"{row.path or 'total':<28} {row.kind:<16} {shape:<18} {row.params:>12,} {row.macs:>15,}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m zoo", description="The models in the zoo.")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="a line for each model")
    listing.add_argument("pattern", nargs="?", default="*", help="shell-style pattern, such as 'resnet*'")
    info = commands.add_parser("info", help="one model: parameters, multiply-adds, layers")
    info.add_argument("name")
    options = parser.parse_args(arguments)
    try:
        _list(options.pattern) if options.command == "list" else _info(options.name)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stderr.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
