"""Tuning end to end, with the interpreter for a device: what is written is what the kernels take."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

import kernels
from experiments import tune
from kernels.linear_act import config as linear
from kernels.runtime import dispatch, tuning
from kernels.softmax_cross_entropy import config
from kernels.verification import aot


def test_what_is_measured_is_written_and_taken(tmp_path, monkeypatch):
    case = tune.Case(
        "softmax_cross_entropy",
        lambda x, implementation: kernels.softmax_cross_entropy(x, jnp.zeros(3, int), implementation=implementation),
        (((3, 70), jnp.float32),),
    )
    monkeypatch.setattr(config, "CANDIDATES", config.CANDIDATES[:2])
    path = tmp_path / "tuned" / "device.json"
    tune.tune([case], path, "interpret", calls=1, rounds=1)
    written = json.loads(path.read_text())["operators"]["softmax_cross_entropy"]
    assert set(written) == {"70", "3x70:float32"}
    choice = written["3x70:float32"]
    assert choice["implementation"] == min(choice["seconds"], key=choice["seconds"].get)
    assert set(choice["seconds"]) == {"xla", "interpret"}
    assert len(choice["candidates"]["interpret"]) == 2
    for entry in written.values():
        assert entry["versions"]["jax"] == jax.__version__
        assert "date" in entry

    monkeypatch.setattr(dispatch, "tuned", lambda kind: json.loads(path.read_text())["operators"])
    best = config.Config(**written["70"]["config"])
    assert config.choose(70)[2] == best


LINEAR = next(case for case in tune.CASES if case.operator == "linear_act")
LINEAR = dataclasses.replace(LINEAR, shapes=(((64, 64), tune.BF16), ((64, 72), tune.BF16), ((72,), jnp.float32)))
LINEAR_CLASS = "64x64:bfloat16 64x72:bfloat16"


def timer(pallas: float):
    """A clock that reads the candidate in force: the third of each kernel is the fastest, and `pallas` is that of Pallas's."""

    def seconds(fn, inputs, calls, rounds):
        if tuning._candidate.value is None:
            return 7.0  # XLA
        operator, values = tuning._candidate.value
        candidates, best = (linear.PALLAS_CANDIDATES, pallas) if operator == "linear_act.pallas" else (linear.CANDIDATES, 3.0)
        return best + abs([dataclasses.asdict(c) for c in candidates].index(dict(values)) - 2)

    return seconds


@pytest.mark.parametrize(("pallas", "hopper", "winner"), [(2.0, True, "pallas"), (4.0, True, "triton"), (2.0, False, "triton")])
def test_both_kernels_of_linear_act_are_measured(tmp_path, monkeypatch, pallas, hopper, winner):
    """The winner runs with what was the fastest for it; a shape that nobody measured gets the rule of config.py."""
    if not hopper:  # where the kernel in Pallas cannot run, it is not tried
        reason = dispatch.device_reason
        monkeypatch.setattr(dispatch, "device_reason", lambda name: "too old" if name == "pallas" else reason(name))
    monkeypatch.setattr(tune, "seconds", timer(pallas))
    path = tmp_path / "device.json"
    with aot.lowering_for("nvidia-h200"):
        tune.tune([LINEAR], path)
        written = json.loads(path.read_text())["operators"]
        choice = written["linear_act"][LINEAR_CLASS]
        assert choice["implementation"] == winner
        assert choice["seconds"] == {"xla": 7.0, "triton": 3.0} | ({"pallas": pallas} if hopper else {})
        assert {name: len(times) for name, times in choice["candidates"].items()} == {
            name: len(candidates) for name, (_, candidates) in tune.families("linear_act", "triton").items()
        }
        assert set(written["linear_act"]) == {LINEAR_CLASS, "64x64x72x2"}
        assert ("linear_act.pallas" in written) == hopper
        assert all("versions" in entry and "seconds" in entry for entries in written.values() for entry in entries.values())

        ruled = linear.choose(65, 64, 72, 2, 132), linear.choose_pallas(65, 64, 72, 132)
        monkeypatch.setattr(dispatch, "tuned", lambda kind: written)
        assert linear.choose(64, 64, 72, 2, 132) == linear.CANDIDATES[2]
        if hopper:
            assert linear.choose_pallas(64, 64, 72, 132) == linear.PALLAS_CANDIDATES[2]
        assert (linear.choose(65, 64, 72, 2, 132), linear.choose_pallas(65, 64, 72, 132)) == ruled
        args = [jax.ShapeDtypeStruct(*shape) for shape in LINEAR.shapes]
        traced = jax.make_jaxpr(lambda *a: kernels.linear_act(*a))(*args)  # a new function: jax remembers what it traced
        assert ("mpmd_map" in str(traced)) == (winner == "pallas")


def test_without_a_gpu_it_says_so(capsys):
    with kernels.target("cpu"):
        assert tune.run(tune.main, []) == 2
    assert "it needs an NVIDIA GPU" in capsys.readouterr().err
    assert tune.run(tune.main, ["--only", "conv"]) == 2
    assert "--only: 'conv' given, it is one of batch_norm_act" in capsys.readouterr().err


def test_a_run_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    """And a candidate that the device refuses is named and left out."""

    def clock(fn, inputs, calls, rounds):
        clock.calls += 1
        if tuning._candidate.value is not None and dict(tuning._candidate.value[1]) == refused:
            raise jax.errors.JaxRuntimeError("out of resource\nmore")
        return 1.0

    clock.calls, refused = 0, dataclasses.asdict(linear.CANDIDATES[0])
    monkeypatch.setattr(tune, "seconds", clock)
    path = tmp_path / "device.json"
    with aot.lowering_for("nvidia-h200"):
        assert tune.tune([LINEAR], path, deadline=0.0) == [LINEAR.name]
        assert tune.tune([LINEAR], path) == []
        once = clock.calls
        assert f"triton {refused} cannot run: out of resource\n" in capsys.readouterr().out
        assert tune.tune([LINEAR], path) == []
    assert clock.calls == once > 0
    assert len(json.loads(path.read_text())["operators"]["linear_act"][LINEAR_CLASS]["candidates"]["triton"]) == (
        len(linear.CANDIDATES) - 1
    )
    assert tune.run(tune.main, ["--minutes", "0"]) == 2
    assert "--minutes: 0 given" in capsys.readouterr().err
