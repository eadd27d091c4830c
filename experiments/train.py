"""Train a zoo model: python -m experiments.train MODEL [flags].

MODEL selects the model's recipe (experiments/recipes/), with --weights a recipe for fine-tuning; flags override each of its
settings. MODEL may also be a recipe file (recipe.py) or a function of your own (MODULE:FUNCTION). The same command resumes an
interrupted run.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from typing import Any

from experiments.errors import UserError, run
from experiments.flags import Parser, add_fields

USAGE = "usage: python -m experiments.train MODEL [--data NAME[:PATH]] [--epochs N] [...]; MODEL --help lists every flag"
DISTRIBUTED = {"--coordinator": str, "--processes": int, "--process-id": int}


def take(arguments: list[str], flags: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values of these flags, None where they are not given, and the other arguments.

    Raises:
      UserError: a value is missing or of another kind.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for flag, kind in flags.items():
        parser.add_argument(flag, type=kind, dest=flag)
    try:
        found, others = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise UserError(f"{error.argument_name}: {error.message}") from error
    return vars(found), others


def start_processes(arguments: list[str]) -> list[str]:
    """Join the other processes of a run, if --distributed is given; returns the other arguments."""
    values, others = take(arguments, DISTRIBUTED)
    if "--distributed" not in others:
        given = [flag for flag, value in values.items() if value is not None]
        if given:
            raise UserError(f"{given[0]}: given without --distributed")
        return others
    from experiments.training import processes

    processes.join(*values.values())
    return [argument for argument in others if argument != "--distributed"]


def parse(arguments: list[str]) -> tuple[Any, bool]:
    """The recipe that the command line asks for, and whether its batch size was named there.

    Raises:
      UserError: an unknown model, data set or flag, or a value that a flag cannot have.
    """
    from experiments import recipes

    if not arguments or arguments[0].startswith("-"):
        raise UserError(f"MODEL is missing; {USAGE}")
    model, *flags = arguments
    named = take(flags, {"--data": str, "--weights": str, "--batch-size": str})[0]
    recipe = recipes.find(model, named["--data"], named["--weights"])
    parser = Parser(f"experiments.train {model}", __doc__, "--epochs 5 --workdir runs/short", usage="%(prog)s [flags]")
    add_fields(parser, recipe, without=("model",))
    return dataclasses.replace(recipe, **vars(parser.parse_args(flags))), named["--batch-size"] is not None


def main(arguments: list[str]) -> int:
    if arguments[:1] in (["-h"], ["--help"]):
        import zoo

        print(f"{__doc__}\n{USAGE}\n\nmodels: {', '.join(zoo.list_models())}")
        return 0
    others = start_processes(arguments)
    import zoo
    from experiments.training import messages, processes
    from experiments.training.interrupts import StoppedError
    from experiments.training.judge import judge_of
    from experiments.training.loop import train

    try:
        with processes.together(StoppedError):
            recipe, batch_named = parse(others)
            zoo.keep_freed_memory()
            with messages.of_libraries(recipe.log_level):
                train(recipe, judge=judge_of, fit_batch=not batch_named)
    except StoppedError as stopped:
        print(stopped, file=sys.stderr)
        return 128 + stopped.signal_number
    return 0


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.exit(run(main))
