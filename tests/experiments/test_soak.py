"""The soak: it disturbs real runs that then end as they should, and it notices a run that does not."""

from __future__ import annotations

import itertools
import json
import pathlib
import random
import sys
from typing import Any

import pytest

from experiments import report, soak
from experiments.errors import UserError
from experiments.measuring import result
from experiments.pages import soak as page
from experiments.soaking import cases, faults
from experiments.soaking.cases import Case
from experiments.soaking.faults import KINDS, Fault

ALONE = Case("lenet5", 1)
# Stands in for a trainer: checkpoints of three steps, continued where it was, and one way to go wrong once it was continued.
FAKE = """
import json, pathlib, signal, sys, time
workdir, wrong = pathlib.Path(sys.argv[1]), sys.argv[2]
again = (workdir / "checkpoints").exists()
for step in (1, 2, 3):
    folder = workdir / "checkpoints" / str(step)
    if not folder.exists():
        folder.mkdir(parents=True)
        (folder / "array").write_text("1234")
        time.sleep(0.2)
if again and wrong == "hangs":
    time.sleep(100)
if again and wrong == "traceback":
    raise KeyError("x")
digest = "other" if again and wrong == "other" else "same"
(workdir / "summary.json").write_text(json.dumps({"parameters_sha256": digest}))
"""


@pytest.fixture
def elsewhere(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setattr(result, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(soak, "FOLDER", tmp_path / "runs")
    return tmp_path


def test_a_real_run_with_two_faults(elsewhere: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cases.FLAGS, "lenet5", "--steps 12 --batch-size 16 --checkpoint-every 0.05 --evaluate-every 9")
    whole = soak.undisturbed(ALONE, elsewhere)
    assert whole.steps == 12
    planned = [Fault("STOP, CONT", "step", (0,)), Fault("TERM", "save", (0,))]
    found = soak.disturb(ALONE, whole, elsewhere / "run", planned, random.Random(0))
    assert found.problems == [], found.log
    assert found.equal
    assert len(found.faults) in (1, 2)  # where the second came too late, the run had ended
    assert found.starts in (1, 2)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("nothing", ""),
        ("hangs", "still there 4 s later, statuses [None]"),
        ("traceback", "printed 'Traceback (most recent call last)'"),
        ("other", "ended with other, undisturbed same"),
    ],
)
def test_what_is_wrong_is_found(wrong: str, said: str, elsewhere: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Case, "commands", lambda self, workdir: [[sys.executable, "-c", FAKE, str(workdir), wrong]])
    monkeypatch.setattr(faults, "RUN_SECONDS", 4)
    monkeypatch.setattr(faults, "LATER_SECONDS", 0.05)
    monkeypatch.setattr(faults, "plan", lambda *_: itertools.repeat(Fault("KILL", "step", (0,))))
    kept: list[dict[str, Any]] = []

    def enough(record: dict[str, Any]) -> None:
        kept.append(json.loads(json.dumps(record)))
        raise KeyboardInterrupt  # as Ctrl-C does after a run: what was found stays

    record = soak.soak([ALONE], 0, 1000, elsewhere, enough)
    assert record["stopped"]
    row = record["cases"]["lenet5-1"]
    assert row["runs"] == 1
    assert row["faults"]["KILL"]["injected"] >= 1
    assert row["equal"] == (wrong == "nothing")
    assert said in "; ".join(problem for finding in record["findings"] for problem in finding["problems"])
    assert bool(record["findings"]) == bool(said)
    assert kept
    assert "lenet5-1" in soak.table(record)
    assert max(map(len, soak.table(record).splitlines())) <= 80
    assert ("no findings" in soak.sentence(record)) == (said == "")
    header, rows = page.faults(record)
    assert header == ["fault", ">`lenet5`"]
    assert [cells[0] for cells in rows] == [*KINDS, "runs"]
    assert f"{row['equal']} of 1 ended" in page.summary(record)


def test_the_result_file(elsewhere: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is time for the undisturbed run alone."""
    monkeypatch.setattr(Case, "commands", lambda self, workdir: [[sys.executable, "-c", FAKE, str(workdir), "nothing"]])
    flags = ["--minutes", "0.001", "--models", "lenet5", "--processes", "1"]
    assert soak.main(flags) == 0
    assert result.load("soak")["cases"]["lenet5-1"]["runs"] == 0
    assert soak.main([*flags, "--out", str(elsewhere)]) == 0
    assert result.read(elsewhere / "cpu" / "soak.json", "soak")["seed"] == 0
    assert list((elsewhere / "runs").iterdir()) == []


def test_the_page_without_a_file(elsewhere: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", elsewhere / "nothing")
    assert "python -m experiments.soak --minutes 60" in report.soaked()


def test_faults_follow_from_the_seed() -> None:
    """Of each kind as many as of the others, at a moment that is the kind's, done to processes that there are."""
    pair = Case("gan_mlp", 2)
    first, again, other = (list(itertools.islice(faults.plan(pair, seed), 90)) for seed in (1, 1, 2))
    assert first == again != other
    kinds = [fault.kind for fault in first]
    assert {kinds.count(kind) for kind in KINDS if kind != "second run"} == {10}
    assert "second run" not in kinds
    assert all(fault.moment in KINDS[fault.kind] for fault in first)
    assert {fault.victims for fault in first} == {(0,), (1,), (0, 1)}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--models", "lenet"], "--models: 'lenet' is not known; did you mean lenet5"),
        (["--models", "resnet20_cifar", "--processes", "2"], "--processes: 2 given, resnet20_cifar runs in one process only"),
        (["--minutes", "0"], "--minutes: 0 given, a number above 0"),
    ],
)
def test_wrong_flags(flags: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        soak.main(flags)


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_five_minutes(elsewhere: pathlib.Path) -> None:
    """Real runs, in one process and in two; the last may go on beyond the five minutes."""
    status = soak.main(["--minutes", "5", "--models", "lenet5", "bilstm_tagger", "--seed", "1"])
    record = result.load("soak")
    assert record["findings"] == []
    assert status == 0
    assert sum(case["runs"] for case in record["cases"].values()) >= 1
