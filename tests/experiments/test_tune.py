"""Tuning end to end, with the interpreter for a device: what is written is what the kernels take."""

from __future__ import annotations

import json

import jax.numpy as jnp

import kernels
from experiments import tune
from kernels import dispatch
from kernels.softmax_cross_entropy import config


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
    assert choice["implementation"] == ("interpret" if choice["seconds"] < choice["xla_seconds"] else "xla")
    assert len(choice["candidates"]) == 3
    assert {"date", "versions"} <= set(choice)

    monkeypatch.setattr(dispatch, "tuned", lambda kind: json.loads(path.read_text())["operators"])
    best = config.Config(**written["70"]["config"])
    assert config.choose(70)[2] == best


def test_without_a_gpu_it_says_so(capsys):
    with kernels.target("cpu"):
        assert tune.run(tune.main, []) == 2
    assert "it needs an NVIDIA GPU" in capsys.readouterr().err
    assert tune.run(tune.main, ["--only", "conv"]) == 2
    assert "--only: 'conv' given, it is one of batch_norm_act" in capsys.readouterr().err
