"""The code in the documentation runs as it stands."""

from __future__ import annotations

import pathlib

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "nnx.md"


def test_the_page_on_nnx() -> None:
    code, inside, blocks = [], False, 0
    for line in PAGE.read_text().splitlines():
        fence = line.startswith("```")
        code.append(line if inside and not fence else "")  # each line where it stands, for tracebacks
        inside = line == "```python" if fence else inside
        blocks += fence and inside
    assert blocks == 8
    exec(compile("\n".join(code), PAGE, "exec"), {})
