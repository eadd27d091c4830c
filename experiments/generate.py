"""Generates output of a trained network: python -m experiments.generate WORKDIR [flags].

A language model writes text: --prompt "def " --length 500 --temperature 0.7 --top-k 20 --top-p 0.95 --seed 1.
A tagger colours a text by its tags: --file PATH, or --prompt TEXT; --out F.html writes an HTML page.
A GAN draws images: --num 64 --out grid.png, --single for a file per image, --interpolate 8 for rows of interpolations.
"""

from __future__ import annotations

import importlib
import pathlib
import sys

import zoo
from experiments.errors import UserError, run
from experiments.flags import Parser
from experiments.training.restore import TRUST, load_run, recipe_of

# task of a recipe -> module with EXAMPLE, add_arguments(parser) and generate(run, options)
TASKS = {
    "language_model": "experiments.generation.characters",
    "tagging": "experiments.generation.tags",
    "gan": "experiments.generation.images",
}


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments else 2
    if arguments[0].startswith("-"):
        raise UserError(f"WORKDIR is missing: {arguments[0]!r} given in its place")
    workdir = pathlib.Path(arguments[0])
    recipe = recipe_of(workdir)
    if recipe.task not in TASKS:
        raise UserError(f"workdir: {workdir} holds a run of {recipe.model} ({recipe.task}), which generates nothing")
    maker = importlib.import_module(TASKS[recipe.task])
    parser = Parser(f"experiments.generate {workdir}", maker.__doc__, maker.EXAMPLE)
    maker.add_arguments(parser)
    parser.add_argument(
        "--checkpoint", default="newest", help="newest (the default), best (selected by the run's --best), or a step"
    )
    parser.add_argument("--trust", action="store_true", help=TRUST)
    options = parser.parse_args(arguments[1:])
    maker.generate(load_run(workdir, checkpoint=options.checkpoint, trust=options.trust), options)
    return 0


if __name__ == "__main__":
    zoo.keep_freed_memory()
    sys.exit(run(main))
