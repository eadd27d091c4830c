"""The command that executes compiled kernels: a case right and wrong, faults put in, the result file, bad arguments."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest

from experiments import execute
from experiments.errors import run
from experiments.execution import cases, faults, large, programs, record, running, seeding
from experiments.execution.case import Case
from experiments.execution.flow import Flow
from experiments.measuring import result
from experiments.pages import executed

POOL = Case("usual", cases.max_pool((1, 9, 8, 40), 2, 2))


@pytest.fixture
def one_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "GROUPS", {"usual": lambda: [POOL]})


def test_a_case_is_executed_written_and_not_done_again(
    one_case: None, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["max_pool", "--arch", "sm_80", "--dtype", "float32", "--out", str(tmp_path)]
    assert run(execute.main, arguments) == 0
    said = capsys.readouterr().out
    assert "no fault" in said
    assert "1 of 1 cases without a fault" in said
    found = result.read(tmp_path / "sm_80.json", "ptx")
    assert (found["measured"], found["how"], found["device"]) == (False, "executed", "sm_80")
    (row,) = found["cases"]
    assert row["error"] <= row["tolerance"]
    assert [kernel["kernel"] for kernel in row["kernels"]] == ["forward_kernel", "backward_kernel"]
    assert all(kernel["instructions"] > 100 and not kernel["faults"] for kernel in row["kernels"])
    assert run(execute.main, arguments) == 0
    assert "1 of 1 stand in the result file already" in capsys.readouterr().out
    table = executed.executed([found])[1]
    assert table[0][:3] == ["max_pool", "sm_80", "1"]
    assert "no races" in executed.sentence([found], [])


def test_a_wrong_result_is_found(
    one_case: None, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = running.Ready.execute

    def wrong(self: Any, *arguments: Any, **options: Any) -> Any:
        results, report = right(self, *arguments, **options)
        results[0].reshape(-1)[3] += 1
        return results, report

    monkeypatch.setattr(running.Ready, "execute", wrong)
    arguments = ["--dtype", "float32", "--out", str(tmp_path)]
    assert run(execute.main, arguments) == 1
    said = capsys.readouterr().out
    assert "from the interpreter" in said
    assert "result 0: off by" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["max_pol"], "OPERATOR: 'max_pol' is not known; did you mean max_pool"),
        (["--arch", "sm_91"], "--arch: 'sm_91' is not known; did you mean"),
        (["--cases", "unusual"], "--cases: 'unusual' is not known; did you mean usual"),
        (["--dtype", "float64"], "--dtype: 'float64' is not known; did you mean"),
        (["--seeds", "0"], "--seeds: 0 given, 1 to 10000 is needed"),
        (["--faults", "-1"], "--faults: -1 given, 0 to 1000000 is needed"),
        (["--minutes", "0"], "--minutes: 0 given"),
    ],
)
def test_one_line_and_status_two(
    arguments: list[str], message: str, one_case: None, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(execute.main, [*arguments, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def ready(case: Case, architecture: str) -> tuple[running.Ready, Any]:
    with running.executing(case, "bfloat16", architecture) as executing:
        programs.results(case, case.draw("bfloat16"))
    return executing.ready[0], executing.here


def test_faults_are_found_and_told_from_those_that_cannot_show(tmp_path: pathlib.Path) -> None:
    seeder = seeding.Seeder(*ready(Case("faults", cases.loss(3, 600, 0.1)), "sm_80"), lambda output: 0.02)
    by_kind = {fault.kind: fault for fault in reversed(list(faults.faults(seeder.lines)))}
    assert "race" in seeder.found_by(by_kind["bar.sync dropped"])
    assert seeder.found_by(by_kind["address of a store to device memory shifted"]) - {seeding.SAME}
    assert seeder.found_by(by_kind["predicate of a store removed"]) == {seeding.SAME}  # to shared memory, by all lanes alike
    assert seeder.why_not(by_kind["predicate of a store removed"], True) is not None
    assert seeder.comes_by(by_kind["bar.sync dropped"].line)
    seen = seeder.kinds(1)
    assert seen["bar.sync dropped"].tried == 1
    kernels = [{"kernel": "forward_kernel", "kinds": {kind: vars(seeded) for kind, seeded in seen.items()}}]
    about = {"source": "", "options": {}, "commit": "", "date": "", "seconds": 1.0}
    row = {"name": "x", "operator": "softmax_cross_entropy", "dtype": "bfloat16", **about, "kernels": kernels}
    file = record.header(record.FAULTS, "sm_80") | {"cases": [row]}
    result.write(file, tmp_path / "faults.json")
    assert result.read(tmp_path / "faults.json", "ptx-faults")["cases"][0]["kernels"] == kernels
    assert ["bar.sync dropped", "1", "1"] in [cells[:3] for cells in executed.faults([file])[1]]


WAITS = """
$L__BB0_1:
	cp.async.wait_group 	0;
	bar.sync 	0;
	ld.shared.b32 	%r1, [%r2];
	bar.sync 	0;
	add.s32 	%r3, %r1, 1;
	bar.sync 	0;
	st.shared.b32 	[%r2], %r3;
	@%p1 bra 	$L__BB0_1;
	bar.sync 	0;
	st.global.b32 	[%rd1], %r3;
	ret;
""".splitlines()


def test_what_waits_and_is_not_needed() -> None:
    flow = Flow(WAITS)
    barriers = [number for number, it in flow.at.items() if it.opcode == "bar.sync"]
    # The first is before a load, with copies and the store of the last turn before it; between the second and the third there
    # is nothing; behind the last nothing is in shared memory.
    assert [flow.redundant(number) is not None for number in barriers] == [False, True, True, True]
    assert flow.redundant(2) is None


def test_shifts_and_predicates() -> None:
    text = ["\t@!%p2 st.global.v2.b32 [ %rd1 + 8 ], { %r1, %r2 };", "\tld.shared.b32 \t%r1, [%r9];"]
    found = {fault.kind: fault.now for fault in faults.faults(text)}
    assert found == {
        "address of a store to device memory shifted": "@!%p2 st.global.v2.b32 [%rd1+24], { %r1, %r2 };",
        "predicate of a store removed": "st.global.v2.b32 [ %rd1 + 8 ], { %r1, %r2 };",
        "address of a load from shared memory shifted": "ld.shared.b32 %r1, [%r9+16];",
    }
    assert faults.opposite("@!%p2 ") == "@%p2 "
    assert faults.opposite("@%p2 ") == "@!%p2 "


def test_the_difference_of_arrays() -> None:
    poison = np.full(3, 255, np.uint8).repeat(4).view(np.float32)
    values = np.array([1.0, np.nan, 4.0], np.float32)
    assert running.difference(values, values) == 0
    assert running.difference(values + np.float32(0.5), values) == pytest.approx(0.125)
    assert running.difference(np.array([1, 2, 4], np.float32), values) == np.inf
    assert running.difference(poison, poison) == 0
    assert running.difference(poison, values) == np.inf
    assert running.difference(np.array([1]), np.array([2])) == np.inf


def test_the_cases_are_told_apart() -> None:
    names = [f"{case.operator} {case.name}" for make in execute.GROUPS.values() for case in make()]
    assert len(names) == len(set(names))
    assert POOL.digest == dataclasses.replace(POOL).digest != dataclasses.replace(POOL, share=0.5).digest
    assert {case.operator for case in seeding.cases()} == {case.operator for case in cases.usual()}


def test_an_offset_beyond_32_bits() -> None:
    case = Case("large", cases.local_response_norm((40_000, 27, 27, 96)), dtypes=("bfloat16",))
    row = large.run(case, "bfloat16", "sm_80")
    assert [(kernel["blocks"], kernel["faults"]) for kernel in row["kernels"]] == [(4, []), (4, [])]
