"""The comparison compiled for an absent H200, its verdicts, pictures and tables."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from experiments import report
from experiments.comparison import compiled, pictures
from experiments.comparison import tables as comparison_tables
from experiments.comparison.cases import linear_case, pool_case
from experiments.comparison.models import ModelCase
from experiments.comparison.recurrent_cases import recurrent_case
from experiments.errors import run
from experiments.measuring import counting, result, verdict
from experiments.measuring import pictures as shared
from experiments.measuring.pictures import digest, drawn_from
from experiments.pages.models import citation
from kernels.verification import aot

DEVICE = "nvidia-h200"
ROOT = pathlib.Path(__file__).parents[2]


def test_a_pool_counted_by_hand() -> None:
    row = compiled.row_of(pool_case("small", 8, 32, 64, 2, 2), DEVICE, "bfloat16")
    xla, hand = row["contenders"]["xla"], row["contenders"]["triton"]
    x, y = 2 * 8 * 32 * 32 * 64, 2 * 8 * 16 * 16 * 64
    assert hand["kernels"] == hand["hand_written"] == 2 < xla["kernels"]
    # Forward reads x, writes y and a byte for each of its values; backward reads that byte and dy, and writes dx.
    assert hand["bytes"] == 2 * (x + y + y // 2) == row["bytes"] < xla["bytes"]
    assert hand["spilled_bytes"] == 0
    assert xla["spilled_bytes"] is None
    # Its memory's time at the rate of a triad, and two launches in a stream.
    assert hand["modelled_seconds"] == pytest.approx(hand["bytes"] / 4.15e12 + 2 * 2.4e-6)
    assert hand["floor_seconds"] == pytest.approx(hand["bytes"] / 4.15e12)
    assert verdict.duels({"measured": False, "cases": [row]})[0].winner == "hand-written"


@pytest.mark.parametrize("name", ["xla", "triton", "pallas"])
def test_a_product_counted_by_hand(name: str) -> None:
    case = linear_case("small", 256, 128, 64, "relu")
    make = compiled.operator_programs(case, DEVICE, jnp.dtype("bfloat16"))[name]
    found = compiled.figures(make, DEVICE, "bfloat16")
    assert found["flops"] == 2 * 256 * 128 * 64
    assert (found["hand_written"] == 1) == (name != "xla")


def test_the_products_of_a_recurrent_layer_are_those_of_its_case() -> None:
    case = recurrent_case("rnn", 16, 4, 64, 64)
    row = compiled.row_of(case, DEVICE, "bfloat16")
    assert set(row["contenders"]) == {"xla", "xla unroll 8", "triton"}
    for name, found in row["contenders"].items():
        assert found["flops"] == case.flops, name
    hand, xla = row["contenders"]["triton"], row["contenders"]["xla"]
    assert hand["kernels"] < xla["kernels"]
    # Four dependent steps of about a microsecond each are most of its time, and not in its bytes or products.
    assert hand["modelled_seconds"] > hand["floor_seconds"] + 2e-6 * hand["kernels"] + 4 * 3e-7


def test_folding_batch_norm_saves_kernels_and_bytes() -> None:
    case = ModelCase("resnet20_cifar", (2, 32, 32, 3), False)
    folded = dataclasses.replace(case, folded=True)
    rows = [compiled.row_of(c, DEVICE, "bfloat16")["contenders"]["xla"] for c in (case, folded)]
    assert folded.name == "resnet20_cifar 2x32x32x3, inference, batch norm folded"
    assert folded.flops() == case.flops()
    assert rows[1]["kernels"] < rows[0]["kernels"]
    assert rows[1]["bytes"] < rows[0]["bytes"]
    assert rows[1]["flops"] == rows[0]["flops"]


@pytest.mark.parametrize("part", [0, 1], ids=["input", "weights"])
def test_the_operations_of_a_convolution_and_its_gradients(part: int) -> None:
    def both(x: jax.Array, w: jax.Array) -> Any:
        conv = lambda *a: jax.lax.conv_general_dilated(*a, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        y, pullback = jax.vjp(conv, x, w)
        return y, pullback(y)[part]

    x, w = (jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in ((8, 16, 16, 32), (3, 3, 32, 64)))
    program = aot.compile_for(DEVICE, both, x, w)
    total = counting.figures(program, DEVICE, "bfloat16", {})["flops"]
    # One multiplication and one addition for each output and each of the 9 * 32 weights that reach it; the gradient as many.
    assert total == 2 * (2 * 8 * 8 * 8 * 64 * 9 * 32)


def test_a_run_resumes_and_keeps_a_failure(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [pool_case("a", 2, 8, 64, 2, 2), pool_case("b", 2, 8, 64, 2, 2)]
    calls = []

    def fails(make: Any, device: str, precision: str) -> dict[str, Any]:
        calls.append(make)
        raise RuntimeError("no compiler")

    monkeypatch.setattr(compiled, "cases_of", lambda kind: cases)
    monkeypatch.setattr(compiled, "figures", fails)
    command = ["operators", "--out", str(tmp_path)]
    assert run(compiled.main, [*command, "--only", "a 2x8"]) == 0
    path = tmp_path / "compiled-operators.json"
    assert [row["name"] for row in json.loads(path.read_text())["cases"]] == [cases[0].name]
    assert run(compiled.main, command) == 0
    assert run(compiled.main, command) == 0
    found = json.loads(path.read_text())
    assert len(calls) == 4, "two contenders of two cases, each once"
    assert found["measured"] is False
    assert found["cases"][0]["contenders"]["triton"] == {"failed": "RuntimeError: no compiler"}
    assert f"{cases[0].name}, triton: RuntimeError" in comparison_tables.failures(found)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--device", "h300"], "--device: 'h300'"),
        (["--minutes", "0"], "--minutes: 0 given"),
        (["--only", "convolve"], "--only: 'convolve'"),
    ],
)
def test_bad_flags(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(compiled.main, ["operators", *flags]) == 2
    assert message in capsys.readouterr().err


def timed(median: float) -> dict[str, float]:
    return {"median": median, "p20": 0.99 * median, "p80": 1.01 * median}


def measured() -> dict[str, Any]:
    """A gain, a loss, a tie, and a case that the hand-written kernel could not run."""
    cases = [
        {"name": "max_pool a, forward", "operator": "max_pool", "bytes": 1e9, "flops": 1e9},
        {"name": "linear_act b, forward", "operator": "linear_act", "bytes": 1e9, "flops": 1e12},
        {"name": "mlp c, forward", "operator": "mlp", "bytes": 1e9, "flops": 1e10},
        {"name": "conv d, forward", "operator": "conv", "bytes": 1e9, "flops": 1e11},
    ]
    times = [(3e-3, 1e-3), (1e-3, 2e-3), (1e-3, 1.005e-3)]
    for case, (xla, hand) in zip(cases, times, strict=False):
        case["contenders"] = {"xla": timed(2 * xla), "xla +WHILE": timed(xla), "triton": timed(hand), "torch": timed(2e-3)}
    cases[3]["contenders"] = {"xla": timed(1e-3), "triton": {"failed": "cannot run: none"}}
    return {
        "measured": True,
        "how": "measured",
        "device": "a device",
        "versions": {"jax": "1"},
        "date": "2026-01-01",
        "dtype": "float32",
        "ceilings": {"bytes_per_second": 1e12, "flops_per_second": 1e14},
        "cases": cases,
    }


def test_verdicts_and_the_tables_of_a_measured_record() -> None:
    record = measured()
    duels = verdict.duels(record)
    assert [d.winner for d in duels] == ["hand-written", "XLA", "even"]
    assert [d.xla_name for d in duels] == ["xla +WHILE"] * 3
    assert [d.ratio() for d in duels[:2]] == pytest.approx([3, 0.5])
    _, rows = comparison_tables.measured_cases(record)
    assert [row[-1] for row in rows] == ["triton", "xla +WHILE", "xla +WHILE = triton", "xla"]
    _, rows = comparison_tables.operators(record)
    assert rows[1][:4] == ["`linear_act`", "", "0.50", "XLA 1 of 1"]


def test_pictures_of_a_measured_record_say_what_they_are_drawn_from(tmp_path: pathlib.Path) -> None:
    record = measured()
    draws = {"a": pictures.draw_speedups, "b": pictures.draw_roofline}
    for name, draw in draws.items():
        draw(record, tmp_path / f"{name}.png")
        assert drawn_from(tmp_path / f"{name}.png") == digest(record)
    cpu = record | {
        "cases": [{**c, "contenders": {n: f for n, f in c["contenders"].items() if n != "triton"}} for c in record["cases"]]
    }
    pictures.draw_speedups(cpu, tmp_path / "c.png")
    assert drawn_from(tmp_path / "c.png") == digest(cpu) != digest(record)
    pictures.draw_speedups(record | {"cases": []}, tmp_path / "d.png")
    assert drawn_from(tmp_path / "d.png") is None


def test_cases_without_a_difference_are_counted_not_drawn(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture says who won in how many cases; each bar has the winner's colour."""
    drawn = []
    monkeypatch.setattr(pictures, "save", lambda figure, path, *records: drawn.append(figure))
    record = result.load("compiled-models", "nvidia-h200")
    pictures.draw_speedups(record, tmp_path / "a.png")
    ratios = [duel.ratio("bytes") for duel in verdict.duels(record)]
    even = sum(map(verdict.even, ratios))
    (figure,) = drawn
    colours = [bar.get_facecolor() for axes in figure.axes for bar in axes.patches]
    assert len(colours) == len(ratios) - even
    assert len(set(colours)) == 1, "XLA's code is better in none"
    assert f"Not shown: {even} cases" in figure.axes[-1].get_xlabel()
    assert f"in {len(ratios) - even} of {len(ratios)} cases, more in none" in figure._suptitle.get_text()
    pictures.draw_overview(result.load("compiled-operators", "nvidia-h200"), record, tmp_path / "b.png")
    dots = sum(len(points.get_offsets()) for axes in drawn[1].axes for points in axes.collections)
    assert dots == len(verdict.duels(result.load("compiled-operators", "nvidia-h200"))) + sum(
        duel.case["train"] for duel in verdict.duels(record)
    )


def test_a_contender_has_one_colour() -> None:
    """The same in pictures, and in the page's light style."""
    style = (ROOT / "experiments" / "pages" / "html" / "style.css").read_text().lower()
    for name in ("XLA", "ours", "torch", "flax"):
        assert f"--{name.lower()}: {shared.CONTENDERS[name].lower()}" in style


def test_committed_pictures_are_drawn_from_the_committed_records() -> None:
    assert not report.stale_pictures(), "python -m experiments.report draws them again"
    shown = " ".join(path.read_text() for path in report.documents())
    for name in report.PICTURES:
        assert (ROOT / "docs" / "images" / name).exists()
        assert f"images/{name})" in shown


def test_every_table_of_compiled_figures_says_so() -> None:
    text = (ROOT / "docs" / "comparison.md").read_text()
    for match in report.BLOCK.finditer(text):
        if not match[2].startswith("measured"):
            assert re.search(r"\bCompiled, not run: |\bMeasured: ", match[3]), match[2]


def test_files_that_the_documents_name_exist() -> None:
    text = "".join(path.read_text() for path in report.documents())
    named = re.findall(r"`((?:kernels|experiments)/[\w/.]+)`", text)
    assert len(named) > 30
    for name in named:
        # A module may be named without its ending; tuned/ is there once somebody has tuned.
        assert (ROOT / name).exists() or (ROOT / f"{name}.py").exists() or name == "kernels/tuned/", name


@pytest.mark.parametrize(
    ("paper", "expected"),
    [
        ("Krizhevsky 2014, One weird trick", "Krizhevsky 2014"),
        ("Hochreiter, Schmidhuber 1997, Long short-term memory", "Hochreiter and Schmidhuber 1997"),
        ("LeCun, Bottou, Bengio, Haffner 1998, Gradient-based learning", "LeCun et al. 1998"),
        ("Cho et al. 2014, Learning phrase representations", "Cho et al. 2014"),
    ],
)
def test_citations(paper: str, expected: str) -> None:
    assert citation(paper) == expected
