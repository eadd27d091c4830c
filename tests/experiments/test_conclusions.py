"""Who won, in a line per case and in sentences, from records that are made up."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from experiments import report
from experiments.comparison import conclusions
from experiments.errors import UserError
from experiments.measuring import result
from experiments.pages.html import page, sections


def timed(median: float, spread: float = 0.01, share: float | None = 0.5) -> dict[str, Any]:
    return {"error": 0.0, "median": median, "p20": median * (1 - spread), "p80": median * (1 + spread), "floor_fraction": share}


def record(cases: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    rows = [
        {
            "name": f"max_pool {number}, forward + backward",
            "operator": "max_pool",
            "dtype": "bfloat16",
            "contenders": contenders,
        }
        for number, contenders in enumerate(cases)
    ]
    versions = {"jax": "0.10.2"}
    return {
        "measured": True,
        "how": "measured",
        "device": "a device",
        "versions": versions,
        "date": "2026-01-02",
        "cases": rows,
    }


def test_the_winner_is_the_fastest_side_in_its_best_form(rng: np.random.Generator) -> None:
    names = ["xla", "xla unroll 8", "triton", "pallas", "torch", "flax"]
    for _ in range(50):
        times = dict(zip(names, rng.uniform(0.5, 2.0, len(names)), strict=True))
        case = record([{name: timed(time) for name, time in times.items()}])["cases"][0]
        sides = {
            "XLA": min(times["xla"], times["xla unroll 8"]),
            "hand-written": min(times["triton"], times["pallas"]),
            "torch": times["torch"],
            "flax": times["flax"],
        }
        first, second = sorted(sides, key=sides.__getitem__)[:2]
        found = conclusions.outcome(case, "median")
        assert (found.first, found.second) == (first, second)
        assert found.ratio == pytest.approx(sides[second] / sides[first])
        # Ranges of 1 % either way touch where the ratio is below 1.01 / 0.99.
        assert found.winner == ("even" if found.ratio <= 1.01 / 0.99 else first)


def test_a_line_names_winner_and_ratio_in_80_columns() -> None:
    for name in ("compare-operators", "compare-models"):
        for case in result.load(name)["cases"]:
            assert len(conclusions.line(case)) == 80
    one = {"xla": timed(2e-3), "triton": timed(1e-3), "torch": {"failed": "OutOfMemory: " + "x" * 200}}
    cases = record([one, {"xla": timed(1e-3)}, {"xla": {"failed": "wrong: " + "y" * 90}}])["cases"]
    lines = [conclusions.line(case) for case in cases]
    assert lines[0].endswith("ours 2.00x vs XLA, 1 ms")
    assert lines[1].endswith("XLA alone, 1 ms")
    assert "failed: wrong" in lines[2]
    assert {len(line) for line in lines} == {80}


def test_sentences_count_what_was_won() -> None:
    found = record(
        [
            {"xla": timed(2.0), "triton": timed(1.0)},
            {"xla": timed(1.0), "triton": timed(1.001)},
            {"xla": timed(1.0, share=1.3), "triton": timed(4.0)},
        ]
    )
    text = " ".join(conclusions.sentences(found))
    assert "the hand-written kernels are faster in 1, XLA in 1, no difference in 1 of 3 cases" in text
    assert "from 0.25 (max_pool 2, fwd + bwd) to 2.00 (max_pool 0, fwd + bwd)" in text
    assert "1 of 3 cases exceeds it" in text
    assert "max_pool: XLA finds each maximum again" in text
    alone = " ".join(conclusions.sentences(record([{"xla": timed(2.0), "torch": timed(1.0)}])))
    assert "Only XLA's code was measured here" in alone
    assert "torch is faster in 1 of 1 case" in alone


def test_counts_and_model_are_said_apart() -> None:
    compiled = result.load("compiled-models", report.GPU)
    counted, modelled = conclusions.counted(compiled), conclusions.modelled(compiled)
    assert all("model " not in text and " ms" not in text for text in counted)
    assert "not measured" in modelled[0]
    assert conclusions.modelled(result.load("compare-models")) == []
    fewer = sum(
        case["contenders"]["zoo"]["bytes"] * 1.05 <= case["contenders"]["xla"]["bytes"]
        for case in compiled["cases"]
        if set(case["contenders"]) == {"xla", "zoo"}
    )
    assert fewer < int(re.findall(r"in (\d+) of", counted[0])[0]) < fewer + 12  # and recurrent models, of several forms


def test_the_page_holds_each_figure_of_the_files(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "page.html"
    assert report.main(["--html", str(path)]) == 0
    assert str(path) in capsys.readouterr().out
    match = re.search(r'id="data">(.*?)</script>', path.read_text(), re.DOTALL)
    assert match
    tabs = {tab["id"]: tab["sections"] for tab in json.loads(match[1])["devices"]}
    assert [section["how"] for section in tabs["nvidia-h200"]][:2] == ["compiled", "modelled"]
    rows = sum(len(result.load(name)["cases"]) for name in page.COMPARED)
    assert len(tabs["cpu"][0]["rows"]) == rows
    for found in (section for sections_ in tabs.values() for section in sections_):
        assert found["rows"], found["title"]
        assert {len(row) for row in found["rows"]} == {len(found["columns"])}
    assert set(tabs) == {path.name for path in result.RESULTS.iterdir()}
    with pytest.raises(UserError, match="--html and --check"):
        report.main(["--html", "--check"])


def test_text_of_a_result_file_cannot_leave_its_place(tmp_path: Any) -> None:
    found = result.load("compare-operators")
    found["cases"][0]["name"] = "</script><script>alert(1)</script>"
    found["device"] = "<b>bold</b>"
    result.write(found, tmp_path / "cpu" / "compare-operators.json")
    text = page.page(tmp_path)
    assert "<script>alert" not in text
    assert "<b>bold" not in text
    assert "&lt;b&gt;bold" in text


def test_ours_are_shown_where_they_were_measured() -> None:
    """On a GPU both sides have times; the bars are ours against XLA's code."""
    found = sections.measured([record([{"xla": timed(2.0), "triton": timed(1.0), "torch": timed(3.0)}])])
    names = [column["name"] for column in found["columns"]]
    assert names[4:9] == ["XLA, ms", "ours, ms", "torch, ms", "ours / XLA, speedup", "torch / XLA, speedup"]
    assert found["bars"]["column"] == "ours / XLA, speedup"
    assert found["rows"][0][4:10] == [2000.0, 1000.0, 3000.0, 2.0, pytest.approx(2 / 3), "ours"]
