"""The comparison: a wrong result is never timed, what is written fits its schema, a run goes on where it stopped."""

from __future__ import annotations

import copy
import json
import pathlib
import re
import subprocess
import sys
import time
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from experiments import compare
from experiments.comparison import pictures, session, tables
from experiments.comparison.cases import loss_case
from experiments.errors import UserError, run
from experiments.measuring import clock, machine, result, resume, sources
from experiments.measuring.clock import Contender, OutOfTimeError, kernel_seconds, measure, relative_error

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    # The ceilings of this machine and the pictures take seconds; the run in a process of its own has both.
    monkeypatch.setattr(machine, "ceilings", lambda _: {"bytes_per_second": 1e10, "flops_per_second": 1e11})
    for name in ("draw_speedups", "draw_roofline"):
        monkeypatch.setattr(pictures, name, lambda *_: None)


# -- the clock ------------------------------------------------------------------------------------------------------------


def test_relative_error() -> None:
    a = np.array([3.0, 4.0])
    assert relative_error([a], [a]) == 0
    assert relative_error([a * 1.01], [a]) == pytest.approx(0.01)
    assert relative_error([a[:1]], [a]) == float("inf")
    assert relative_error([a * np.nan], [a]) == float("inf")
    assert relative_error([1e6 * a, a * 1.01], [1e6 * a, a]) == pytest.approx(0.01), "a small output counts as a large one"


def test_a_wrong_or_failing_contender_is_not_timed() -> None:
    calls: dict[str, int] = {"right": 0, "wrong": 0}

    def counted(name: str, factor: float) -> Contender:
        def call(x: jnp.ndarray) -> jnp.ndarray:
            calls[name] += 1
            return factor * x

        return Contender(call)

    def fails(x: jnp.ndarray) -> jnp.ndarray:
        raise RuntimeError("no such device\nmore")

    def refused() -> Contender:
        with kernels.target("cpu"):
            kernels.max_pool(jnp.ones((1, 2, 2, 1)), 2, implementation="triton")
        raise AssertionError

    made = {
        "right": lambda: counted("right", 2.0),
        "wrong": lambda: counted("wrong", 2.1),
        "fails": lambda: Contender(fails),
        "triton": refused,
    }
    draw = lambda rng: [rng.standard_normal((4, 5)).astype(np.float32)]
    reference = [2.0 * draw(np.random.default_rng(0))[0].astype(np.float64)]
    found = measure(made, draw, reference, 2e-3, platform="cpu", rounds=2, block_seconds=1e-3)
    assert {"median", "p20", "p80", "error", "calls", "kernel_seconds"} == set(found["right"])
    assert found["wrong"]["failed"].startswith("wrong: relative error 0.05")
    assert found["fails"] == {"failed": "RuntimeError: no such device"}
    assert found["triton"] == {"failed": "cannot run: it needs an NVIDIA GPU, and programs here run on cpu"}
    assert calls["wrong"] == 1 < calls["right"]
    with pytest.raises(OutOfTimeError, match="0 of 4 contenders"):
        measure(made, draw, reference, 2e-3, platform="cpu", rounds=1, block_seconds=1e-3, deadline=time.monotonic() - 1)


# -- a run and its record -------------------------------------------------------------------------------------------------


@pytest.fixture
def _two_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [loss_case("small", 8, 10), loss_case("large", 16, 10)]
    monkeypatch.setattr(session, "cases_of", lambda *_: cases)


def run_quick(folder: pathlib.Path, *flags: str) -> dict[str, Any]:
    """The record after `compare operators --quick` into the folder."""
    assert run(compare.main, ["operators", "--quick", "--rounds", "1", "--out", str(folder), *flags]) == 0
    return result.read(folder / "compare-operators.json")


@pytest.mark.usefixtures("_two_cases")
def test_a_run_is_written_and_gone_on_with(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = run_quick(tmp_path, "--only", "small")
    (row,) = one["cases"]
    assert one["measured"] is True
    figures = row["contenders"]["xla"]
    assert figures["error"] < 1e-6
    assert 0 < figures["p20"] <= figures["median"] <= figures["p80"]
    assert row["floor_seconds"] == max(row["bytes"] / 1e10, row["flops"] / 1e11)
    assert figures["floor_fraction"] == pytest.approx(row["floor_seconds"] / figures["median"])
    assert figures["bytes_per_second"] == pytest.approx(row["bytes"] / figures["median"])
    assert "**xla**" in (tmp_path / "compare-operators.md").read_text()

    both = run_quick(tmp_path)  # only the missing one is run
    assert [r["name"] for r in both["cases"]] == [c.name for c in session.cases_of("operators", True, "cpu")]
    assert both["cases"][0] == row
    assert "1 of 2 stand in the result file already" in capsys.readouterr().out

    monkeypatch.setattr(session, "source_digest", lambda: "changed")
    changed = run_quick(tmp_path, "--only", "small")  # the other row stays as it is
    assert changed["cases"][0]["source"] == "changed"
    assert changed["cases"][1] == both["cases"][1]
    again = run_quick(tmp_path, "--only", "small", "--rounds", "2")
    assert again["cases"][0]["options"]["rounds"] == 2


@pytest.mark.usefixtures("_two_cases")
def test_it_stops_before_the_time_is_over(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(resume, "BEGUN", time.monotonic())
    real = session.run_case
    # The first case is said to have taken an hour: there is no time for a second one.
    monkeypatch.setattr(session, "run_case", lambda *arguments: real(*arguments) | {"seconds": 3600.0})
    found = run_quick(tmp_path, "--minutes", "9")
    assert len(found["cases"]) == 1
    assert "stopped for time; left: 1, next softmax_cross_entropy large" in capsys.readouterr().out

    monkeypatch.setattr(resume, "BEGUN", time.monotonic() - 600)
    assert run_quick(tmp_path, "--minutes", "9") | {"clocks": None} == found | {"clocks": None}


@pytest.mark.usefixtures("_two_cases")
def test_other_versions_are_not_mixed(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run_quick(tmp_path)
    path = tmp_path / "compare-operators.json"
    found["versions"]["jax"] = "0.0.1"
    path.write_text(json.dumps(found))
    assert run(compare.main, ["operators", "--quick", "--only", "small", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "of another device or of other versions; do all of it again, or give another folder with --out" in error
    assert run_quick(tmp_path)["versions"]["jax"] != "0.0.1"
    path.write_text("{")
    run_quick(tmp_path, "--only", "small")
    assert "is damaged" in capsys.readouterr().out


def test_a_case_without_a_reference_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: Any) -> None:
        raise ValueError("not for these shapes")

    monkeypatch.setattr(session, "_work", refuses)
    row = session.run_case(loss_case("small", 8, 10), session.Options("operators"))
    assert row["contenders"] == {"xla": {"failed": "no reference: ValueError: not for these shapes"}}


def test_the_schema_names_what_does_not_fit(tmp_path: pathlib.Path) -> None:
    good = sample(1.0)
    result.check(good)

    def broken(change: Any) -> dict[str, Any]:
        changed = copy.deepcopy(good)
        change(changed)
        return changed

    for change, message in (
        (lambda r: r.pop("commit"), "commit is missing"),
        (lambda r: r.update(extra=1), "extra is not one of"),
        (lambda r: r.update(how="compiled"), "how is 'compiled' where measured is True"),
        (lambda r: r.update(measured=1), "measured is 1, bool is needed"),
        (lambda r: r["cases"][0].update(seconds=True), "seconds is True, int or float is needed"),
        (lambda r: r["cases"][0].pop("operator"), "operator is missing"),
        (lambda r: r["cases"][0]["contenders"]["xla"].update(median=None), "median is None"),
        (lambda r: r["cases"].append(3), "cases 1 is 3, an object is needed"),
    ):
        with pytest.raises(UserError, match=message):
            result.check(broken(change))
    path = tmp_path / "compare-operators.json"
    result.write(good, path)
    with pytest.raises(UserError, match="was measured, and is not written over"):
        result.write(good | {"measured": False, "how": "compiled"}, path)
    assert result.read(path) == good


def fields_of(schema: Any) -> set[str]:
    """The names of all fields that a schema lays down."""
    if isinstance(schema, dict):
        return {name for name in schema if isinstance(name, str)}.union(*map(fields_of, schema.values()))
    return set().union(*map(fields_of, schema)) if isinstance(schema, (list, tuple)) else set()


def test_committed_records_fit_and_the_fields_are_documented() -> None:
    for path in sorted(result.RESULTS.glob("*/*.json")):
        found = result.read(path)
        assert found["experiment"] in result.SCHEMAS or not path.name.startswith(("compare", "compiled", "guide"))
    text = (ROOT / "docs" / "results.md").read_text()
    assert not [
        name for schema in result.SCHEMAS.values() for name in fields_of(schema) if not re.search(rf"[`.]{name}\b", text)
    ]


def test_a_file_of_another_experiment_is_refused(tmp_path: pathlib.Path) -> None:
    result.write_json(tmp_path / "guide.json", sample(1.0))
    with pytest.raises(UserError, match="experiment is 'operators', guide is needed"):
        result.read(tmp_path / "guide.json", "guide")


# -- regressions, flags, the machine --------------------------------------------------------------------------------------


def sample(median: float) -> dict[str, Any]:
    figures = {"median": median, "p20": 0.98 * median, "p80": 1.02 * median, "error": 0.0, "calls": 1}
    figures |= dict.fromkeys(("kernel_seconds", "floor_fraction", "bytes_per_second", "flops_per_second"))
    row = {
        "name": "x", "operator": "conv", "dtype": "float32", "bytes": 1, "flops": None, "floor_seconds": None, "options": {},
        "source": "0", "commit": "0", "date": "2026-01-01", "seconds": 1.0,
        "contenders": {"xla": figures, "torch": {"failed": "wrong"}},
    }  # fmt: skip
    return {
        "measured": True, "how": "measured", "experiment": "operators", "device": "cpu",
        "dtype": "float32", "date": "2026-01-01", "commit": "0",
        "versions": {"jax": "0"}, "clocks": None, "protocol": "", "cases": [row],
        "ceilings": {"bytes_per_second": 1.0, "flops_per_second": 1.0},
    }  # fmt: skip


def test_regressions_beyond_the_noise(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, median in (("old", 1.0), ("same", 1.03), ("slow", 1.2)):
        (tmp_path / f"{name}.json").write_text(json.dumps(sample(median)))
    path = lambda name: str(tmp_path / f"{name}.json")
    assert run(compare.main, ["--check", path("old"), path("same")]) == 0
    assert run(compare.main, ["--check", path("old"), path("slow")]) == 1
    assert "x, xla: 1000.000 ms before, 1200.000 ms now" in capsys.readouterr().out
    assert run(compare.main, ["--check", path("old"), path("none")]) == 2


def test_the_table_shows_losses_and_failures() -> None:
    found = sample(2.0)
    won = found["cases"][0]["contenders"]
    won["triton"] = won["xla"] | {"median": 4.0}
    text = tables.every_contender(found)
    assert "| **xla** | 2000.000 |" in text
    assert "| triton | 4000.000 |" in text
    assert "| 0.50 |" in text
    assert "| torch | wrong |" in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "kind: operators or models is needed"),
        (["operators", "--peers", "torchh"], "--peers: 'torchh' is not known; did you mean torch"),
        (["operators", "--rounds", "0"], "--rounds: 0 given"),
        (["operators", "--minutes", "0"], "--minutes: 0 given"),
        (["operators", "--minutes", "nan"], "--minutes: nan given"),
        (["models", "--only", "nothing at all"], "--only: 'nothing at all' is not known"),
    ],
)
def test_bad_flags(flags: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    assert run(compare.main, [*flags, "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.json"))


def test_what_is_said_of_the_machine(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"device", "versions", "date", "commit"} <= set(machine.surroundings())
    rates = machine.clocks()
    assert rates is None or set(rates) == {"cpu_mhz"}
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    assert machine.commit() == "unknown"  # no git there


NVIDIA_SMI = """#!/bin/sh
if [ "$1" = --list-gpus ]; then
  echo "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa1111-0)"
  echo "GPU 1: NVIDIA H200 (UUID: GPU-bbbb2222-0)"
  echo "  MIG 1g.18gb     Device  0: (UUID: MIG-cccc3333-0)"
  echo "GPU 2: NVIDIA H200 (UUID: GPU-bbbb4444-0)"
  exit
fi
for last; do :; done
case $last in
  --id=GPU-aaaa1111-0) echo "1000, 1, 1, 1" ;;
  --id=GPU-bbbb2222-0) echo "1500, 2, 2, 2" ;;
  --id=GPU-bbbb4444-0) echo "1800, 3, 3, 3" ;;
  *) exit 6 ;;
esac
"""
H200_KIND, H100_KIND, MIG_KIND = "NVIDIA H200", "NVIDIA H100 80GB HBM3", "NVIDIA H200 MIG 1g.18gb"


@pytest.mark.parametrize(
    ("visible", "number", "kind", "mhz"),
    [
        (None, 0, H100_KIND, 1000),
        (None, 2, H200_KIND, 1800),
        ("2", 0, H200_KIND, 1800),
        ("1, 2", 1, H200_KIND, 1800),
        ("GPU-bbbb2222-0", 0, H200_KIND, 1500),
        ("GPU-bbbb4", 0, H200_KIND, 1800),  # as much of a UUID as makes it unique
        ("MIG-cccc3333-0", 0, MIG_KIND, 1500),  # a part of a GPU has the clock of the whole
        ("MIG-GPU-bbbb4444-0/1/0", 0, MIG_KIND, 1800),
        ("GPU-bbbb", 0, H200_KIND, None),
        ("GPU-dddd", 0, H200_KIND, None),
        ("7", 0, H200_KIND, None),
        ("2", 1, H200_KIND, None),
        ("", 0, H200_KIND, None),
        ("0", 0, H200_KIND, None),  # CUDA counts otherwise than nvidia-smi
    ],
)
def test_the_clock_is_that_of_the_gpu_in_use(
    visible: str | None, number: int, kind: str, mhz: float | None, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvidia-smi").write_text(NVIDIA_SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    device = types.SimpleNamespace(local_hardware_id=number, device_kind=kind)
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    with kernels.target("nvidia-h200"):
        found = machine.clocks()
    assert (found and found["sm_mhz"]) == mhz


def test_without_nvidia_smi_there_are_no_clocks(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with kernels.target("nvidia-h200"):
        assert machine.clocks() is None


class _Renamed:
    """A module without the function that was there."""


class _Changed:
    @staticmethod
    def measure(call: Any) -> Any:
        return lambda *args: (call(*args),)


class _Works:
    @staticmethod
    def measure(call: Any) -> Any:
        return lambda *args: (call(*args), 2.0)


@pytest.mark.parametrize(("profiler", "seconds"), [(_Renamed, None), (_Changed, None), (None, None), (_Works, 2e-3)])
def test_a_profiler_that_changed_costs_the_kernels_times_only(
    profiler: Any, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = types.ModuleType("jax.experimental.mosaic.gpu")
    if profiler is not None:  # type: ignore[comparison-overlap]
        parent.profiler = profiler  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jax.experimental.mosaic.gpu", parent)
    assert kernel_seconds(lambda x: x, [[1.0], [2.0]]) == seconds


def test_the_digest_is_of_what_is_imported(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    monkeypatch.setattr(sources, "imports", sources.imports.__wrapped__)  # files change here, and nothing is remembered of them
    digest = lambda: sources.digest.__wrapped__("zoo.top", tuned=True)

    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    tuned = lambda seconds, rows: write(
        "kernels/tuned/gpu.json",
        json.dumps({"operators": {"mlp": {"1": {"config": {"rows": rows}, "seconds": seconds}}}}),
    )
    write("zoo/top.py", "import json\nfrom zoo.middle import name\n")
    write("zoo/middle.py", "def name():\n    from kernels import bottom\n")
    write("kernels/bottom.py", "x = 1")
    write("kernels/other.py", "x = 1")
    tuned(1.0, 16)
    assert sources.closure("zoo.top") == {"zoo.top", "zoo.middle", "kernels.bottom"}
    seen = [digest()]
    write("kernels/other.py", "x = 2")
    tuned(2.0, 16)  # tuned again with the same outcome
    assert digest() == seen[0]
    for change in (
        lambda: tuned(2.0, 32),
        lambda: write("kernels/bottom.py", "x = 2"),  # imported by what is imported, in a function
        lambda: write("zoo/middle.py", "from kernels.bottom import x"),
    ):
        change()
        assert digest() not in seen
        seen.append(digest())


def test_the_digests_are_of_the_kernels_and_of_the_device_model() -> None:
    """What changes a figure leaves no row current."""
    every = {f"kernels.{path.parent.name}.{path.stem}" for path in (ROOT / "kernels").glob("*/[a-z]*.py")}
    timed = sources.closure("experiments.comparison.session", "kernels.linear_act.pallas")
    counted = sources.closure("experiments.comparison.compiled", "kernels.linear_act.pallas")
    unseen = {name for name in every - timed if not name.startswith(("kernels.verification.", "kernels.commands."))}
    assert not unseen
    assert {"experiments.measuring.device_model", "experiments.measuring.recurrent_model"} <= counted
    assert "experiments.comparison.conclusions" not in timed | counted, "a conclusion worded anew measures nothing anew"
    topic = sources.closure("experiments.guide.fusion", "experiments.guide.session")
    assert {"experiments.measuring.device_model", "experiments.measuring.clock", "kernels.verification.traffic"} <= topic
    assert "experiments.guide.verdict" not in topic, "a verdict worded anew measures nothing anew"


# Not on the GPU machine, or nothing that the comparison may need. rich is: flax imports it itself.
ABSENT = (
    *("orbax", "grain", "tensorboardX", "safetensors", "huggingface_hub", "jaxtyping", "beartype", "sklearn"),
    "platformdirs",
)
BLOCKED = f"""
import runpy, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Block())
sys.argv = [sys.argv[1], *sys.argv[2:]]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("command", [["experiments.compare", "operators"], ["kernels", "list"]])
def test_it_needs_nothing_that_the_gpu_machine_lacks(command: list[str], tmp_path: pathlib.Path) -> None:
    flags = ["--quick", "--rounds", "1", "--only", "softmax", "--out", str(tmp_path)] if command[1] == "operators" else []
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, *command, *flags], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    if flags:
        (row,) = result.read(tmp_path / "compare-operators.json")["cases"]
        assert row["contenders"]["xla"]["median"] > 0


def test_inputs_in_turn_outgrow_the_cache_of_the_device() -> None:
    """A B200's is larger than twice an H200's."""
    draw = lambda rng: [np.zeros(40 * 2**20, np.uint8)]
    counts = {}
    for name in ("h200", "b200"):
        with kernels.target(name) as device:
            counts[name] = len(clock._sets(draw, "cuda", 0))
            assert counts[name] * 40 * 2**20 > 2 * device.l2_cache
    assert counts == {"h200": 3, "b200": 7}
