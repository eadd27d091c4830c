"""Functions and shapes of one's own: checked, timed, and said who won."""

from __future__ import annotations

import csv
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import compare as command
from experiments.comparison import compare, conclusions, functions
from experiments.errors import UserError, run
from experiments.measuring import clock, machine, result

OWN = """
import jax
import numpy as np
from experiments.comparison.cases import loss_case

def pair():
    return {"xla": jax.nn.relu, "mine": lambda x: x * (x > 0)}, [np.ones((4, 3), np.float32)]

def shape():
    return loss_case("mine", 8, 10)

def nothing():
    return 5
"""


@pytest.fixture
def _own(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_case_of_a_test.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(machine, "ceilings", lambda _: {"bytes_per_second": 1e10, "flops_per_second": 1e11})


def slower(x: jax.Array) -> jax.Array:
    """The same values after 300 needless products."""
    product = lambda _, y: y @ jnp.eye(y.shape[1], dtype=y.dtype)
    return jax.lax.fori_loop(0, 300, product, x)


def test_the_faster_wins_and_the_wrong_is_not_timed(rng: np.random.Generator) -> None:
    x = rng.standard_normal((32, 32)).astype(np.float32)
    made = {"slow": slower, "fast": lambda x: x + 0, "wrong": lambda x: x + 1, "fails": lambda x: x @ x[:3]}
    found = compare(made, [x], rounds=3, block_seconds=1e-3)
    assert found.winner == "fast"
    assert found.ratio > 3  # 300 products of 32 x 32 take far longer than one addition
    figures = found.case["contenders"]
    assert "wrong: relative error" in figures["wrong"]["failed"]
    assert "median" not in figures["fails"]
    assert f"fast is {found.ratio:.2f}x as fast as slow" in found.conclusion
    assert found.counts["fast"]["bytes"] == 2 * x.nbytes  # each element read once and written once
    assert all(len(line) <= 80 for line in str(found).splitlines())


def test_inputs_are_drawn_anew_and_every_output_counts(rng: np.random.Generator) -> None:
    seen = []

    def draw(generator: np.random.Generator) -> list[np.ndarray]:
        seen.append(generator.standard_normal((5, 7)).astype(np.float32))
        return [seen[-1]]

    both = {"xla": lambda x: (x, 2 * x), "mine": lambda x: (x, 2.1 * x)}
    found = compare(both, draw, rounds=1, block_seconds=1e-3)
    assert "failed" in found.case["contenders"]["mine"], "the second output differs"
    assert found.winner is None
    assert "the only one that ran" in found.conclusion
    assert len({x.tobytes() for x in seen}) > 2


def test_bad_arguments() -> None:
    x = [np.ones(3, np.float32)]
    with pytest.raises(UserError, match=r"functions: \{\} given"):
        compare({}, x)
    with pytest.raises(UserError, match="inputs: none given"):
        compare({"xla": lambda: 0}, [])
    with pytest.raises(UserError, match="rounds: 0 given, 1 or more"):
        compare({"xla": lambda x: x}, x, rounds=0)


@pytest.mark.usefixtures("_own")
def test_a_case_of_ones_own_on_the_command_line(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, contenders in (("pair", ["xla", "mine"]), ("shape", ["xla"])):
        path = tmp_path / "new" / f"{name}.csv"
        flags = ["--quick", "--rounds", "1", "--csv", str(path)]
        assert run(command.main, ["--case", f"own_case_of_a_test:{name}", *flags]) == 0
        rows = list(csv.DictReader(path.read_text().splitlines()))
        assert [row["contender"] for row in rows] == contenders
        assert float(rows[0]["speedup"]) == 1
        assert all(float(row["p20_ms"]) <= float(row["median_ms"]) <= float(row["p80_ms"]) for row in rows)
        assert {row["how"] for row in rows} == {"measured"}
        assert all(len(line) <= 80 for line in capsys.readouterr().out.splitlines() if not line.startswith("written"))
    for given, said in (
        ("own_case_of_a_test:nothing", "returns a int; a Case, or functions by name and inputs are needed"),
        ("own_case_of_a_test:other", "has no function other"),
        ("no_such_module:f", "cannot be imported"),
        ("pair", "MODULE:FUNCTION is needed"),
    ):
        assert run(command.main, ["--case", given]) == 2
        assert said in capsys.readouterr().err


def test_the_end_says_what_was_compiled_where_only_xla_ran() -> None:
    measured = result.load("compare-operators")
    one = measured | {"cases": [case for case in measured["cases"] if case["operator"] == "lenet5"]}
    text = conclusions.closing(one, result.load("compiled-operators", "nvidia-h200"))
    assert all(len(line) <= 80 for line in text.splitlines())
    said = " ".join(text.split())
    assert "Only XLA's code was measured here" in said
    assert "Compiled for nvidia-h200, not run" in said
    assert "in 1 of 1 case" in said, "the same operator alone"
    assert "Why: lenet5: one launch" in said


def test_a_row_for_each_case_and_contender() -> None:
    record = result.load("compare-operators")
    rows = conclusions.csv_rows(record)
    assert len(rows) == sum(len(case["contenders"]) for case in record["cases"])
    assert {key for row in rows for key in row} == set(conclusions.CSV)
    torch = next(row for row in rows if row["contender"] == "torch")
    first = record["cases"][0]["contenders"]
    assert torch["speedup"] == first["xla"]["median"] / first["torch"]["median"]


def test_a_ceiling_is_the_best_of_many_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading and writing, or reading alone, whichever moves more bytes in a second."""
    asked = []

    def best(call: object, calls: int = 8) -> float:
        asked.append(calls)
        return [0.5, 0.1][len(asked) - 1]

    monkeypatch.setattr(clock, "best_seconds", best)
    monkeypatch.setattr(machine.jnp, "ones", lambda *_: np.zeros(1000, np.float32))
    assert machine.bytes_per_second.__wrapped__() == 4000 / 0.1
    assert min(asked) >= 20


def test_a_case_is_loaded_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"--case: ':' given"):
        functions.load(":")
