"""README and docs say what the result files say."""

from __future__ import annotations

import re

import pytest

from experiments import report
from experiments.errors import UserError
from experiments.measuring import result


def test_documents_agree_with_their_result_files() -> None:
    for path in report.documents():
        assert report.written(path) == path.read_text(), f"{path.name}: python -m experiments.report rewrites it"


def test_every_block_stands_in_some_document() -> None:
    used = {match[2] for path in report.documents() for match in report.BLOCK.finditer(path.read_text())}
    assert used == set(report.BLOCKS)


def test_a_changed_figure_is_noticed() -> None:
    text = "<!-- begin lenet5-digits -->\ntest accuracy 100.00%\n<!-- end lenet5-digits -->"
    assert report.render(text) != text
    with pytest.raises(UserError, match="block: 'nothing' is not one of"):
        report.render("<!-- begin nothing -->\n<!-- end nothing -->")


def test_result_files_say_how_they_were_obtained() -> None:
    files = sorted(result.RESULTS.rglob("*.json"))
    assert files
    for path in files:
        found = result.read(path)
        assert found["measured"] is (found["how"] == "measured"), path
        assert {"device", "versions", "date"} <= set(found), path
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", found["date"]), path
