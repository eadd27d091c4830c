"""The comparison: a wrong result is never timed, losses are shown like wins, regressions are named."""

from __future__ import annotations

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import compare
from experiments.comparison.cases import operator_cases
from experiments.comparison.timing import Contender, measure, relative_error
from experiments.errors import run


def test_relative_error() -> None:
    a = np.array([3.0, 4.0])
    assert relative_error([a], [a]) == 0
    assert relative_error([a * 1.01], [a]) == pytest.approx(0.01)
    assert relative_error([a[:1]], [a]) == float("inf")
    assert relative_error([a * np.nan], [a]) == float("inf")


def test_a_wrong_or_failing_contender_is_not_timed() -> None:
    calls: dict[str, int] = {"right": 0, "wrong": 0}

    def counted(name: str, factor: float) -> Contender:
        def call(x: jnp.ndarray) -> jnp.ndarray:
            calls[name] += 1
            return factor * x

        return Contender(call)

    def fails(x: jnp.ndarray) -> jnp.ndarray:
        raise RuntimeError("no such device\nmore")

    contenders = {"right": counted("right", 2.0), "wrong": counted("wrong", 2.1), "fails": Contender(fails)}
    draw = lambda rng: [rng.standard_normal((4, 5)).astype(np.float32)]
    reference = [2.0 * draw(np.random.default_rng(0))[0].astype(np.float64)]
    found = measure(contenders, draw, reference, "float32", platform="cpu", rounds=2, block_seconds=1e-3)
    assert {"median", "p20", "p80", "error"} <= set(found["right"])
    assert found["wrong"]["failed"].startswith("wrong: relative error 0.05")
    assert found["fails"]["failed"] == "RuntimeError: no such device"
    assert calls["wrong"] == 1 < calls["right"]


def test_every_operator_case_has_a_floor_and_runs() -> None:
    cases = operator_cases(False, "cpu")
    assert {c.operator for c in cases} >= {
        "max_pool",
        "local_response_norm",
        "batch_norm_act",
        "linear_act",
        "softmax_cross_entropy",
    }
    for case in cases:
        assert case.bytes(2) == case.bytes(4) / 2 or "max_pool" in case.name  # positions are bytes whatever the dtype


def record(median: float, name: str = "x") -> dict:
    figures = {"median": median, "p20": 0.98 * median, "p80": 1.02 * median, "error": 0.0}
    return {
        "measured": True, "experiment": "operators", "device": "cpu", "dtype": "float32", "date": "2026-01-01",
        "versions": {"jax": "0"}, "cases": [{"name": name, "contenders": {"xla": figures, "torch": {"failed": "wrong"}}}],
    }  # fmt: skip


def test_regressions_beyond_the_noise(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, median in (("old", 1.0), ("same", 1.03), ("slow", 1.2)):
        (tmp_path / f"{name}.json").write_text(json.dumps(record(median)))
    path = lambda name: str(tmp_path / f"{name}.json")
    assert run(compare.main, ["--check", path("old"), path("same")]) == 0
    assert run(compare.main, ["--check", path("old"), path("slow")]) == 1
    assert "x, xla: 1000.000 ms before, 1200.000 ms now" in capsys.readouterr().out
    assert run(compare.main, ["--check", path("old"), path("none")]) == 2


def test_one_operator_end_to_end(tmp_path: pathlib.Path) -> None:
    flags = ["operators", "--quick", "--only", "max_pool", "--rounds", "1", "--out", str(tmp_path)]
    assert run(compare.main, flags) == 0
    found = json.loads((tmp_path / "compare-operators.json").read_text())
    assert found["measured"] is True
    assert {"device", "versions", "date", "commit", "protocol", "ceilings", "dtype"} <= set(found)
    (case,) = found["cases"]
    assert case["contenders"]["xla"]["median"] > 0
    assert "**xla**" in (tmp_path / "compare-operators.md").read_text()
    written = (tmp_path / "compare-operators.json").stat().st_mtime_ns
    assert run(compare.main, flags) == 0  # what is there of this commit is kept
    again = json.loads((tmp_path / "compare-operators.json").read_text())
    assert again["cases"] == found["cases"] or found["commit"] != again["commit"]
    assert (tmp_path / "compare-operators.json").stat().st_mtime_ns >= written


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "kind: operators or models is needed"),
        (["operators", "--peers", "torchh"], "--peers: 'torchh' is not known; did you mean torch"),
        (["operators", "--rounds", "0"], "--rounds: 0 given"),
        (["operators", "--only", "nothing at all"], "--only: 'nothing at all' is not known"),
    ],
)
def test_bad_flags(flags: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    assert run(compare.main, [*flags, "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
