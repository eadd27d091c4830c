"""Train a zoo model: python -m experiments.train MODEL [flags].

MODEL alone picks the model's recipe (experiments/recipes/); every choice in it is a flag. The same command again continues
a run that was interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from experiments.errors import UserError, nearest, run

USAGE = "usage: python -m experiments.train MODEL [--data NAME[:PATH]] [--epochs N] [...]; MODEL --help lists every flag"
DISTRIBUTED = {"--coordinator": str, "--processes": int, "--process-id": int}


def _take(arguments: list[str], flag: str) -> str | None:
    """Remove `flag VALUE` or `flag=VALUE` from the arguments, and return the value."""
    for index, argument in enumerate(arguments):
        if argument == flag:
            if index + 1 == len(arguments):
                raise UserError(f"{flag}: a value is needed")
            value = arguments[index + 1]
            del arguments[index : index + 2]
            return value
        if argument.startswith(flag + "="):
            del arguments[index]
            return argument.partition("=")[2]
    return None


def start_processes(arguments: list[str]) -> None:
    """Join the other processes of a run, if --distributed is given; its flags are removed from the arguments."""
    values = {flag: _take(arguments, flag) for flag in DISTRIBUTED}
    if "--distributed" not in arguments:
        given = [flag for flag, value in values.items() if value is not None]
        if given:
            raise UserError(f"{given[0]}: given without --distributed")
        return
    arguments.remove("--distributed")
    import jax

    options: dict[str, Any] = {}
    for (flag, kind), name in zip(DISTRIBUTED.items(), ("coordinator_address", "num_processes", "process_id"), strict=True):
        value = values[flag]
        try:
            options[name] = kind(value) if value is not None else None
        except ValueError as error:
            raise UserError(f"{flag}: {value!r} given, a whole number is needed") from error
    try:
        jax.distributed.initialize(**options, heartbeat_timeout_seconds=20)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"--distributed: {error}") from error


def parse(arguments: list[str]) -> Any:
    """The recipe that the command line asks for.

    Raises:
      UserError: an unknown model, data set or flag.
    """
    import tyro

    from experiments import recipes
    from experiments.recipes.recipe import Recipe

    if not arguments or arguments[0].startswith("-"):
        raise UserError(f"MODEL is missing; {USAGE}")
    model, *flags = arguments
    known = {f"--{no}{name.replace('_', '-')}" for name in Recipe.__dataclass_fields__ for no in ("", "no-")} - {"--model"}
    for flag in flags:
        if flag.startswith("--") and flag.partition("=")[0] not in {*known, "--help"}:
            raise UserError(nearest("flag", flag.partition("=")[0], (f for f in known if not f.startswith("--no-"))))
    recipe = recipes.find(model, _take(list(flags), "--data"))
    return tyro.cli(Recipe, args=flags, default=recipe, prog=f"python -m experiments.train {model}")


def main(arguments: list[str]) -> int:
    if arguments[:1] in (["-h"], ["--help"]):
        import zoo

        print(f"{__doc__}\n{USAGE}\n\nmodels: {', '.join(zoo.list_models())}")
        return 0
    start_processes(arguments)
    recipe = parse(arguments)
    from experiments.training.interrupts import StoppedError
    from experiments.training.judge import judge_of
    from experiments.training.loop import train

    try:
        train(recipe, judge=judge_of)
    except StoppedError as stopped:
        print(stopped, file=sys.stderr)
        return 128 + stopped.signal_number
    return 0


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.exit(run(main))
