"""The comparison: a wrong result is never timed, losses are shown like wins, regressions are named."""

from __future__ import annotations

import copy
import json
import pathlib
import re
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import compare
from experiments.benchmarks.result import RESULTS
from experiments.comparison import record, session
from experiments.comparison.cases import Case, operator_cases
from experiments.comparison.timing import Contender, measure, relative_error
from experiments.errors import UserError, run


def test_relative_error() -> None:
    a = np.array([3.0, 4.0])
    assert relative_error([a], [a]) == 0
    assert relative_error([a * 1.01], [a]) == pytest.approx(0.01)
    assert relative_error([a[:1]], [a]) == float("inf")
    assert relative_error([a * np.nan], [a]) == float("inf")


def test_a_wrong_or_failing_contender_is_not_timed() -> None:
    calls: dict[str, int] = {"right": 0, "wrong": 0}

    def counted(name: str, factor: float) -> Callable[[], Contender]:
        def call(x: jnp.ndarray) -> jnp.ndarray:
            calls[name] += 1
            return factor * x

        return lambda: Contender(call)

    def fails(x: jnp.ndarray) -> jnp.ndarray:
        raise RuntimeError("no such device\nmore")

    contenders = {"right": counted("right", 2.0), "wrong": counted("wrong", 2.1), "fails": lambda: Contender(fails)}
    draw = lambda rng: [rng.standard_normal((4, 5)).astype(np.float32)]
    reference = [2.0 * draw(np.random.default_rng(0))[0].astype(np.float64)]
    found = measure(contenders, draw, reference, 1e-3, platform="cpu", rounds=2, block_seconds=1e-3)
    assert {"median", "p20", "p80", "error"} <= set(found["right"])
    assert found["wrong"]["failed"].startswith("wrong: relative error 0.05")
    assert found["fails"]["failed"] == "RuntimeError: no such device"
    assert calls["wrong"] == 1 < calls["right"]


def test_every_operator_case_has_a_floor() -> None:
    for platform in ("cpu", "cuda"):
        cases = operator_cases(False, platform)
        assert len({case.name for case in cases}) == len(cases)
        for case in cases:
            assert case.flops > 0
            assert case.bytes(2) == case.bytes(4) / 2 or "max_pool" in case.name  # positions are bytes whatever the dtype


FIGURES = {"calls": 3, "kernel_seconds": None, "floor_fraction": 0.5, "bytes_per_second": 1e9, "flops_per_second": None}


def written(median: float, **changes: object) -> dict:
    """A result file with one case."""
    figures = {"error": 0.0, "median": median, "p20": 0.98 * median, "p80": 1.02 * median, **FIGURES}
    case = {
        "name": "x", "operator": "max_pool", "dtype": "float32", "bytes": 1.0, "flops": None, "floor_seconds": 0.5,
        "options": {}, "source": "0", "commit": "0", "date": "2026-01-01", "seconds": 1.0,
        "contenders": {"xla": figures, "torch": {"failed": "wrong | no"}},
    }  # fmt: skip
    return {
        "measured": True, "experiment": "operators", "device": "cpu", "dtype": "float32", "date": "2026-01-01", "commit": "0",
        "versions": {"jax": "0"}, "clocks": None, "protocol": "", "cases": [case],
        "ceilings": {"bytes_per_second": 1.0, "flops_per_second": 1}, **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("clocks"), "result file: clocks is missing"),
        (lambda r: r.update(more=1), "result file: more is not one of"),
        (lambda r: r.update(measured=1), "measured is 1, bool is needed"),
        (lambda r: r.update(experiment="pets"), "experiment is 'pets', operators or models is needed"),
        (lambda r: r["cases"][0].update(bytes="many"), "case 'x': bytes is 'many', int or float or null is needed"),
        (lambda r: r["cases"][0]["contenders"]["xla"].pop("p20"), "case 'x', xla: p20 is missing"),
        (lambda r: r["cases"][0]["contenders"]["torch"].update(median=1.0), "case 'x', torch: median is not one of failed"),
        (lambda r: r["cases"].append(None), "case: NoneType given, an object is needed"),
    ],
)
def test_a_result_file_of_another_form_is_refused(change: Callable[[dict], object], message: str) -> None:
    found = written(1.0)
    record.check(found)
    change(found)
    with pytest.raises(UserError, match=re.escape(message)):
        record.check(found)


def test_committed_result_files_have_the_documented_form() -> None:
    for path in RESULTS.glob("*/compare-*.json"):
        assert record.read(path)["measured"]
    documented = (RESULTS.parents[1] / "docs" / "results.md").read_text()
    fields = (record.RECORD, record.CASE, record.OPERATOR, record.MODEL, record.TIMED, record.FAILED)
    assert not [name for group in fields for name in group if f"`{name}`" not in documented]


def test_what_was_compiled_is_not_written_over_what_was_measured(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "compare-operators.json"
    record.write(written(1.0), path)
    with pytest.raises(UserError, match="was measured"):
        record.write(written(2.0, measured=False), path)
    assert record.read(path)["cases"][0]["contenders"]["xla"]["median"] == 1.0


def test_failures_stand_in_the_table() -> None:
    table = record.markdown(written(1.0)).splitlines()
    assert "| x | float32 | **xla** | 1000.000 |" in table[-2]
    assert "| x | float32 | torch | wrong / no |" in table[-1]
    assert table[-1].count("|") == table[-2].count("|") == table[2].count("|")


def test_without_a_reference_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(session.contenders, "operator_reference", refuses)
    monkeypatch.setattr(session.machine, "ceilings", lambda _: {"bytes_per_second": 1e9, "flops_per_second": 1e9})
    (case, *_) = operator_cases(True, "cpu")
    row = session.run_case(case, session.Options("operators", True))
    assert row["contenders"] == {"xla": {"failed": "no reference: RuntimeError: out of memory"}}


def test_a_run_stops_for_time_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock of our own: each case takes 10 s."""
    now, ran = [0.0], []

    def run_case(case: Case, options: session.Options) -> dict:
        now[0] += 10
        ran.append(case.name)
        row = copy.deepcopy(written(1.0)["cases"][0])
        return row | {"name": case.name, "options": options.of_row(case), "source": "now", "seconds": 10.0}

    monkeypatch.setattr(session.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(session, "run_case", run_case)
    monkeypatch.setattr(session, "begin", lambda _: written(1.0, cases=[]))
    monkeypatch.setattr(session.machine, "source_digest", lambda: "now")
    names = [case.name for case in operator_cases(True, "cpu")]
    saved, said = [], []
    go = lambda old, deadline, **more: session.compare(
        session.Options("operators", True, deadline=deadline, **more), old, saved.append, said.append
    )
    found, left = go(None, 25.0)
    assert ran == names[:2]
    assert left == names[2:]
    assert [len(each["cases"]) for each in saved] == [1, 2]
    found, left = go(found, float("inf"))
    assert ran == names
    assert not left
    assert "2 of 11 cases stand in the result file already" in said
    go(found, float("inf"))
    assert len(ran) == len(names)  # all is there
    go(found, float("inf"), rounds=5)
    assert len(ran) == 2 * len(names)  # of another protocol
    monkeypatch.setattr(session.machine, "source_digest", lambda: "later")
    go(found, float("inf"), only=names[0])
    assert ran[-1] == names[0]
    assert len(ran) == 2 * len(names) + 1
    with pytest.raises(UserError, match="another device"):
        go(found | {"device": "other"}, float("inf"), only=names[0])


def test_regressions_beyond_the_noise(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, median in (("old", 1.0), ("same", 1.03), ("slow", 1.2)):
        (tmp_path / f"{name}.json").write_text(json.dumps(written(median)))
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
    record.check(found)
    (case,) = found["cases"]
    assert case["contenders"]["xla"]["median"] > 0
    assert "**xla**" in (tmp_path / "compare-operators.md").read_text()
    assert run(compare.main, flags) == 0  # what is there of these sources is kept
    assert record.read(tmp_path / "compare-operators.json")["cases"] == found["cases"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "kind: operators or models is needed"),
        (["operators", "--peers", "torchh"], "--peers: 'torchh' is not known; did you mean torch"),
        (["operators", "--rounds", "0"], "--rounds: 0 given"),
        (["models", "--minutes", "0"], "--minutes: 0 given, a number above 0 is needed"),
        (["models", "--minutes", "nan"], "--minutes: nan given, a number above 0 is needed"),
        (["operators", "--only", "nothing at all"], "--only: 'nothing at all' is not known"),
    ],
)
def test_bad_flags(flags: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    assert run(compare.main, [*flags, "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
