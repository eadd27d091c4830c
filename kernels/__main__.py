"""python -m kernels check | tune | list: whether every kernel is correct on this device, which is fastest, and what is
chosen."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

from rich.console import Console

from kernels.commands import check, listing, tune
from kernels.runtime.dispatch import NAMES, operators


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its status."""
    parser = argparse.ArgumentParser(prog="python -m kernels", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    known = operators()
    to_check = commands.add_parser("check", help="compare every kernel with float64, each in its own process")
    to_tune = commands.add_parser("tune", help="measure all implementations and block sizes, and store the fastest")
    to_list = commands.add_parser("list", help="what is available, what is chosen, and why")
    for part in (to_check, to_tune, to_list):
        part.add_argument("operators", nargs="*", metavar="OPERATOR", help=f"all, or some of {', '.join(known)}")
    to_check.add_argument(
        "--implementation", action="append", default=[], choices=NAMES, help="check only this implementation; may be repeated"
    )
    for part in (to_check, to_tune):
        part.add_argument("--limit", type=float, default=check.LIMIT, help="time limit per case in seconds (%(default)g)")
    to_tune.add_argument(
        "--minutes", type=float, default=math.inf, help="stop within this many minutes; the same command resumes"
    )
    given = parser.parse_args(arguments)
    for name in given.operators:
        if name not in known:
            parser.error(f"OPERATOR: {name!r} is none of {', '.join(known)}")
    for name in ("limit", "minutes"):
        if not getattr(given, name, 1) > 0:
            parser.error(f"--{name}: {getattr(given, name):g} given, a number above 0 is needed")
    console = Console()
    try:
        if given.command == "check":
            return check.main(given.operators, given.implementation, given.limit, console)
        if given.command == "tune":
            return tune.main(given.operators, given.minutes, given.limit, console)
        return listing.main(given.operators, console)
    except check.NoDeviceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
