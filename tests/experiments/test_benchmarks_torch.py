"""A smoke run of every script under experiments/benchmarks/, at sizes that take no time: what it writes is a result file."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import signal
import subprocess
import time
from typing import Any

import dying_reader
import numpy as np
import pytest

from experiments.benchmarks import (
    conv_models_cpu,
    cpu_operators,
    fine_tuning,
    float32_gradients,
    fuzz,
    fuzz_inputs,
    gan_cpu,
    import_cost,
    input_and_checkpoints,
    learning,
    parity,
    ptx_speed,
    python_step,
    recurrent_compiled,
    recurrent_cpu,
)
from experiments.errors import UserError
from experiments.measuring import clock, result

FOLDER = pathlib.Path(learning.__file__).parent
SCRIPTS = {name for name, value in globals().items() if getattr(value, "__name__", "").startswith("experiments.benchmarks.")}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result, "RESULTS", tmp_path)
    real = clock.interleaved
    monkeypatch.setattr(clock, "interleaved", lambda calls, rounds=1, warmup=1: real(calls, 1, 1))


def written(name: str, device: str = "cpu") -> dict[str, Any]:
    return result.load(name, device)


def test_every_script_is_here() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} - {"__init__"} == SCRIPTS


def summary(flags: list[str], seed: int, look: Any = None) -> dict[str, Any]:
    """Stands in for a run of experiments.train."""
    quality = {name: float(seed) for name in learning.GAN_FIGURES}
    figures = {"eval_accuracy": 0.9 + seed / 100, "eval_bits_per_character": 2.0, "parameters": 3, "steps": 4, "seconds": 1.0}
    figures["eval_short_accuracy"] = 0.8
    return quality | figures | {"eval_real_frechet_distance": 2.0, "process_seconds": 2.0, "collapsed": False}


def test_recipes_over_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "run", summary)
    learning.main(["lenet5"])
    assert [run["accuracy"] for run in written("lenet5-digits")["runs"]] == [0.9 + seed / 100 for seed in range(10)]
    learning.main(["recurrent", "lstm_lm"])
    learning.main(["recurrent", "bilstm_tagger"])
    found = written("recurrent-learning")["recipes"]
    assert set(found) == {"lstm_lm", "bilstm_tagger"}, "a later run completes an earlier one"
    assert (found["bilstm_tagger"]["lowest"], found["bilstm_tagger"]["highest"]) == (0.9, 0.92)
    assert [run["eval_short_accuracy"] for run in found["bilstm_tagger"]["runs"]] == [0.8] * 3
    assert "eval_short_accuracy" not in found["lstm_lm"]["runs"][0]
    learning.main(["gan", "gan_mlp"])
    assert written("gan-learning")["recipes"]["gan_mlp"]["median_over_real"] == 0.5
    learning.main(["conv", "resnet20_cifar"])
    assert written("conv-learning")["runs"]["resnet20_cifar"]["figure"] == "eval_accuracy"
    with pytest.raises(UserError, match="did you mean gan_mlp"):
        learning.main(["gan", "gan_mpl"])


def test_a_run_is_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(command: list[str], **_: Any) -> None:
        assert command[1:4] == ["-m", "experiments.train", "lenet5"]
        workdir = pathlib.Path(command[command.index("--workdir") + 1])
        workdir.mkdir()
        (workdir / "summary.json").write_text(json.dumps({"seed": command[command.index("--seed") + 1]}))

    monkeypatch.setattr(subprocess, "run", train)
    assert learning.run(["lenet5"], 3)["seed"] == "3"


def test_trained_weights_against_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """One size and step: every strategy is run, from weights of the first data, and one answer is kept."""
    monkeypatch.setattr(fine_tuning, "SEEDS", (0,))
    monkeypatch.setattr(fine_tuning, "EACH", (2,))
    begun: list[dict[str, Any]] = []
    real = fine_tuning.train

    def train(recipe: Any, *arguments: Any) -> Any:
        begun.append(recipe.settings())
        return real(dataclasses.replace(recipe, steps=1), *arguments)

    monkeypatch.setattr(fine_tuning, "train", train)
    assert fine_tuning.main([]) == 0
    found = written("fine-tuning")
    assert list(found["accuracy"]) == list(fine_tuning.STRATEGIES)
    assert all(len(by_each["2"]) == 1 for by_each in found["accuracy"].values())
    assert [bool(run["weights"]) for run in begun] == [False, False, True, True, True, True]
    assert np.array(found["example"]["image"]).shape == (32, 32)
    assert len(found["example"]["answer"]) == 5
    few = fine_tuning.digits(noisy=True, each=2).train.arrays
    assert np.bincount(few["label"]).tolist() == [2] * 10


def test_learning_by_heart() -> None:
    assert set(learning.overfit("lenet5", 32, 10)) == {"accuracy", "steps", "loss", "seconds"}


def test_importing_the_kernels_and_the_zoo(tmp_path: pathlib.Path) -> None:
    assert import_cost.main(["--rounds", "1", "--out", str(tmp_path / "elsewhere")]) == 0
    record = result.read(tmp_path / "elsewhere" / "cpu" / "import-cost.json")
    assert set(record["seconds"]) == {"kernels", "zoo", "zoo, LeNet-5", "zoo, everything"}
    assert all(0 < spread["median"] < 60 for spread in record["seconds"].values())


def test_inputs_are_read_in_a_process_with_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setattr(fuzz, "KEPT", tmp_path / "kept")
    fuzz.main(["--inputs", "2"])
    found = written("fuzz")["readers"]
    assert set(found) == set(fuzz_inputs.READERS)
    assert all(figures["taken"] + figures["refused"] + sum(figures["findings"].values()) == 2 for figures in found.values())
    assert fuzz.content_of("mnist", 0, 7) == fuzz.content_of("mnist", 0, 7) != fuzz.content_of("mnist", 1, 7)


def test_what_a_reader_can_do_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "work", dying_reader.work)
    monkeypatch.setattr(fuzz, "SECONDS", 1)
    found = fuzz.outcomes([("x", 0, number) for number in range(5)])
    assert found == ["taken", "crash, status -11", "taken", "longer than 3 s", "taken"]


def test_an_outcome_is_one_of_a_few(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    def reader(read: Any) -> str:
        monkeypatch.setitem(fuzz_inputs.READERS, "x", fuzz_inputs.Reader("x", list, read))
        return fuzz.outcome("x", tmp_path / "x")

    def fails(text: str, kind: type[Exception] = ValueError) -> Any:
        def read(path: pathlib.Path) -> None:
            raise kind(text)

        return read

    assert reader(lambda path: 1) == "taken"
    assert reader(fails(f"{tmp_path}/x: damaged")) == "refused"
    assert reader(fails("damaged")).startswith("not one line that names the file")
    assert reader(fails(f"{tmp_path}\n")).startswith("not one line that names the file")
    assert reader(fails("x", KeyError)) == "KeyError: 'x'"
    previous = signal.signal(signal.SIGALRM, fuzz._stop)
    monkeypatch.setattr(fuzz, "SECONDS", 1)
    try:
        assert reader(lambda path: time.sleep(30)) == "longer than 1 s"
    finally:
        signal.signal(signal.SIGALRM, previous)


def test_networks_beside_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv_models_cpu, "CASES", {"tiny": ("resnet18", 32, 2, 10, False, 1.5)})
    conv_models_cpu.main(["--only", "tiny"])
    assert written("conv-models")["cases"]["tiny"]["ratio"] > 0
    parity.main(["lenet5"])
    assert written("parity")["models"]["lenet5"]["params"] == 61_706


def test_pythons_share_of_a_step() -> None:
    python_step.main(steps=3)
    assert written("python-step")["seconds"] > 0


def test_operators_beside_torchs() -> None:
    rng = np.random.default_rng(0)
    found = cpu_operators.convolution((2, 8, 8, 3), (3, 3, 3, 4), 1, 1, rng) | cpu_operators.pool((2, 8, 8, 3), 2, 2, 0, rng)
    assert set(found) == {"output", "input gradient", "weight gradient", "output and gradient"}
    assert all(set(times) == {"ours", "xla", "torch"} for times in found.values())


def test_float32_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float32_gradients, "SIZE", 32)
    monkeypatch.setattr(float32_gradients, "BATCH", 2)
    found = float32_gradients.measure("resnet18", 1)
    assert np.isfinite(found["zoo"] + found["torch"]).all()


def test_gans_beside_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gan_cpu.CASES, "tiny", ("gan_mlp", "", 1, 1.0))
    assert gan_cpu.step_times("tiny")["ratio"] > 0
    monkeypatch.setitem(gan_cpu.LAYERS, "tiny", (2, 4, 3))
    monkeypatch.setattr(gan_cpu, "BATCH", 2)
    assert set(gan_cpu.form_times("tiny")["seconds"]) == set(gan_cpu.FORMS)
    compiled = gan_cpu.form_kernels("tiny", 2)
    assert all(found["kernels"] > 0 < found["bytes"] for found in compiled.values())


def test_recurrent_layers_beside_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"STEPS": 3, "BATCH": 2, "HIDDEN": 4, "CALLS": 2, "LENGTHS": (3,)}.items():
        monkeypatch.setattr(recurrent_cpu, name, value)
    recurrent_cpu.main()
    assert written("recurrent-cpu")["forward_backward"]["ratio"] > 0


def test_recurrent_kernels_compiled() -> None:
    shape = recurrent_compiled.Shape(2, 8, 16, 64)
    one, four = (recurrent_compiled.xla(shape, unroll)["forward_kernels_per_step"] for unroll in (1, 4))
    assert four < one, "steps in a turn of XLA's loop share kernels"
    calls = recurrent_compiled.launches(shape)
    assert recurrent_compiled.taken(calls[0])["spilled"] == 0
    assert recurrent_compiled.ours(shape, 1)["forward_ms"] > 0


def test_ptx_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptx_speed, "CASES", ptx_speed.CASES[:1])
    ptx_speed.main(["--runs", "1", "--arch", "sm_80"])
    (figures,) = written("ptx-speed")["kernels"].values()
    assert figures["instructions"] > 1000
    assert figures["instructions_per_second"] > 0


def test_input_and_checkpoints(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_and_checkpoints, "AIMS", {"blocked_share": 2.0, "input_wait": 2.0})  # no test asserts a time
    assert input_and_checkpoints.main("lenet5", steps=3, rounds=2) == 0
    found = written("input-and-checkpoints")
    assert found["bytes"] > 3 * 4 * 61_706  # parameters and both moments of AdamW
    assert len(found["blocked_seconds"]) == len(found["written_seconds"]) == 2
    assert 0 < found["blocked_share"] <= 1
    assert 0 <= found["input_wait"] <= 1
    assert "blocks the step" in capsys.readouterr().out
    monkeypatch.setattr(input_and_checkpoints, "AIMS", {"blocked_share": 0.0})
    assert input_and_checkpoints.main("lenet5", steps=3, rounds=1) == 1
