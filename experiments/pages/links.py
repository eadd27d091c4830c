"""README.md for a package index, where links to files of a repository lead nowhere: python -m experiments.pages.links ADDRESS.

Rewrites README.md in the current folder. ADDRESS is where the files are served, such as https://host/owner/name/raw/main.
"""

from __future__ import annotations

import pathlib
import re
import sys

from experiments.errors import UserError, run

LINK = re.compile(r"(\]\()(?![a-z+]+:|#)([^)\s]+\))")  # to a file, neither with a scheme nor within the page


def absolute(text: str, address: str) -> str:
    """The text with the address before each link to a file, pictures among them."""
    return LINK.sub(rf"\g<1>{address.rstrip('/')}/\g<2>", text)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not arguments[0].startswith("https://"):
        raise UserError(f"ADDRESS: {' '.join(arguments) or 'nothing'} given, one that begins with https:// is needed")
    readme = pathlib.Path("README.md")
    readme.write_text(absolute(readme.read_text(), arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
