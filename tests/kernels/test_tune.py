"""Tuning end to end, with the interpreter for a device or a made-up clock: what is written is what the kernels take."""

from __future__ import annotations

import dataclasses
import io
import json
import sys

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

import kernels
from kernels.commands import cases, measure, tune
from kernels.linear_act import config as linear
from kernels.max_pool import config as max_pool
from kernels.recurrent import config as recurrent
from kernels.recurrent import cudnn, xla
from kernels.runtime import devices, dispatch, measured
from kernels.softmax_cross_entropy import config
from kernels.verification import aot


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv(measured.VARIABLE, str(tmp_path))
    return tmp_path


def test_what_is_measured_is_written_and_taken(monkeypatch, cache):
    """On this machine, where the interpreter stands in for a GPU's kernel."""
    monkeypatch.setattr(config, "CANDIDATES", config.CANDIDATES[:2])
    monkeypatch.setattr(max_pool, "CANDIDATES", max_pool.CANDIDATES[:1])
    loss = lambda x, labels: kernels.softmax_cross_entropy(x, labels, 0.1).sum()
    step = lambda x, labels: jax.grad(loss)(kernels.max_pool(x[:, :, None, None], 2, 1, "SAME")[:, :, 0, 0], labels)
    x, labels = jnp.zeros((3, 70)), jnp.zeros(3, int)
    clock = lambda runs: {name: 1.0 + (name != "interpret") for name in runs}
    found = measure.autotune(step, (x, labels), 1e9, implementations=("xla", "interpret"), clock=clock)
    assert [one.case for one in found] == ["max_pool 3x70x1x1, float32", "softmax_cross_entropy 3x70 3, float32"]
    assert "interpret is 2.00 times as fast as xla" in str(found[1])
    written = json.loads((cache / "cpu.json").read_text())["operators"]["softmax_cross_entropy"]
    assert set(written) == {"70", "3x70:float32"}
    assert written["3x70:float32"]["seconds"] == {"xla": 2.0, "interpret": 1.0}
    assert "date" in written["70"]
    best = config.Config(**written["70"]["config"])
    assert best in config.CANDIDATES
    assert config.choose(70)[2] == best
    assert "callback" in jax.jit(lambda x: loss(x, labels)).lower(x).as_text()
    assert "callback" not in jax.jit(lambda x: loss(x, labels[:2])).lower(x[:2]).as_text()


def test_real_times_are_of_one_call(cache):
    runs = {"one": [lambda: jnp.zeros(3)], "two": [lambda: jnp.zeros(3), lambda: jnp.ones(3)]}
    found = measure.interleaved(runs, rounds=2, block=0.001)
    assert set(found) == {"one", "two"}
    assert all(0 < seconds < 1 for seconds in found.values())


LINEAR = next(case for case in cases.LARGE if case.operator == "linear_act")
LINEAR = dataclasses.replace(LINEAR, shapes={"x": (64, 64), "w": (64, 72), "b": (72,)})
LINEAR_CLASS = "64x64:bfloat16 64x72:bfloat16"


def clock(pallas):
    """The third candidate of each kernel is the fastest; `pallas` is the time of Pallas's."""

    def read(runs):
        if set(runs) <= set(dispatch.NAMES):
            return {name: {"xla": 7.0, "triton": 3.0, "pallas": pallas}[name] for name in runs}
        return {label: 1.0 + abs(number - 2) for number, label in enumerate(runs)}

    return read


@pytest.mark.parametrize(("pallas", "hopper", "winner"), [(2.0, True, "pallas"), (4.0, True, "triton"), (2.0, False, "triton")])
def test_both_kernels_of_linear_act_are_measured(cache, pallas, hopper, winner):
    """The winner runs with what was the fastest for it; a shape that nobody measured gets the rule of config.py."""
    kind = "h200" if hopper else "a100-80gb"  # where the kernel in Pallas cannot run, it is not tried
    with aot.lowering_for(kind):
        found = measure.measure(LINEAR, "bfloat16", clock=clock(pallas), build=lambda *_: [])
        assert found.seconds == {"xla": 7.0, "triton": 3.0} | ({"pallas": pallas} if hopper else {})
        assert found.left_out == {}
        written = found.entries
        assert written["linear_act"][LINEAR_CLASS]["implementation"] == winner
        assert set(written["linear_act"]) == {LINEAR_CLASS, "64x64x72x2"}
        assert ("linear_act.pallas" in written) == hopper
        cores = devices.device().cores
        ruled = linear.choose(65, 64, 72, 2, cores), linear.choose_pallas(65, 64, 72, cores)
        measure.remember(devices.device(), written, {})
        assert linear.choose(64, 64, 72, 2, cores) == linear.CANDIDATES[2]
        if hopper:
            assert linear.choose_pallas(64, 64, 72, cores) == linear.PALLAS_CANDIDATES[2]
        assert (linear.choose(65, 64, 72, 2, cores), linear.choose_pallas(65, 64, 72, cores)) == ruled
        args = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in LINEAR.shapes.values()]
        traced = jax.make_jaxpr(lambda *a: kernels.linear_act(*a))(*args)  # a new function: jax remembers what it traced
        assert ("mpmd_map" in str(traced)) == (winner == "pallas")


def test_a_candidate_that_is_refused_or_wrong_is_left_out_and_named():
    def build(case, implementation, inputs):
        if dict(recurrent_or_linear()) == dataclasses.asdict(linear.CANDIDATES[0]):
            raise jax.errors.JaxRuntimeError("out of resource\nmore")
        if dict(recurrent_or_linear()) == dataclasses.asdict(linear.CANDIDATES[1]):
            raise measure.WrongError("result 0: off by 3")
        return []

    from kernels.runtime import tuning

    recurrent_or_linear = lambda: tuning._candidate.value[1] if tuning._candidate.value else ()
    with aot.lowering_for("a100-80gb"):
        found = measure.measure(LINEAR, "bfloat16", clock=clock(9.0), build=build)
    labels = [json.dumps(dataclasses.asdict(candidate)) for candidate in linear.CANDIDATES[:2]]
    assert found.left_out == {f"triton {labels[0]}": "out of resource", f"triton {labels[1]}": "result 0: off by 3"}
    (config,) = (entry for entry in found.entries["linear_act"].values() if "config" in entry)
    assert len(config["candidates"]) == len(linear.CANDIDATES) - 2


def test_recurrent_kernels_cudnn_and_the_forms_of_xla_are_measured(monkeypatch, cache):
    case = next(case for case in cases.LARGE if case.operator == "lstm")
    times = {"xla": 9.0, "triton": 3.0, "cudnn": 2.0}
    read = lambda runs: {label: times.get(label, float(number)) for number, label in enumerate(reversed(runs))}
    with aot.lowering_for("h100"):
        found = measure.measure(case, "float32", clock=read, build=lambda *_: [])
        assert found.seconds == times
        measure.remember(devices.device(), found.entries, {})
        weights = case.draw("float32")["layers"]
        x = jnp.zeros((64, 128, 256))
        key = recurrent.shape_class("lstm", x, weights)
        assert measured.tuned(devices.device())["lstm"][key]["implementation"] == "cudnn"
        taken = []
        monkeypatch.setattr(cudnn, "stack", lambda *arguments: taken.append("cudnn") or xla.stack(*arguments))
        jax.eval_shape(lambda x: kernels.lstm(x, weights)[0], x)
        assert taken == ["cudnn"]
        assert recurrent.plan(4, 256, 64, 1, 4).num_warps == 8
        chosen = [entry["config"] for entry in found.entries["recurrent"].values()]
        assert chosen == [dataclasses.asdict(recurrent.CANDIDATES[-1])] * len(chosen)
        assert chosen
        assert {"unroll": 8} in [entry["config"] for entry in found.entries["recurrent.xla"].values()]
        loop = jax.make_jaxpr(lambda x: kernels.lstm(x, weights, implementation="xla")[0])(x)
        assert "unroll=8" in str(loop)
    assert "unroll=1" in str(jax.make_jaxpr(lambda x: kernels.lstm(x, weights, implementation="xla")[0])(x))


WORKER = """
import json, sys, time
say = lambda **content: print(json.dumps(content), flush=True)
if sys.argv[1] == "describe":
    say(device=DEVICE, versions={"jax": "1"})
    say(operator="max_pool", available={"xla": None, "triton": REASON})
elif sys.argv[2] == "HANGS":
    time.sleep(600)
else:
    entries = {"max_pool": {sys.argv[2]: {"implementation": "triton"}}}
    say(case=" ".join(sys.argv[2:]), seconds={"xla": 2e-3, "triton": 1e-6}, left_out={}, entries=entries)
"""


def run(minutes=float("inf"), hangs="none", reason=None):
    device = json.dumps(dataclasses.asdict(devices.H200))
    program = WORKER.replace("DEVICE", device).replace("HANGS", hangs).replace("REASON", repr(reason))
    text = io.StringIO()
    command = lambda *arguments: [sys.executable, "-c", program, *arguments]
    status = tune.main(["max_pool"], minutes, 2.0, Console(file=text, width=200), command)
    return status, text.getvalue()


def test_a_run_goes_on_where_it_stopped(cache):
    status, text = run(minutes=1e-9)
    assert (status, "6 cases are left" in text) == (0, True)
    status, text = run(hangs="1")
    assert status == 1
    assert text.count("triton is 2000.00 times as fast as xla: triton 1 us, xla 2.00 ms") == 4
    assert text.count("timed out: nothing heard for 2 s") == 2  # in either dtype
    status, text = run()
    assert (status, text.count("times as fast")) == (0, 2)  # what was measured is not measured again
    with kernels.target("h200"):
        assert set(measured.tuned(devices.device())["max_pool"]) == {"0", "1", "2"}


def test_without_a_gpu_it_says_so(cache):
    status, text = run(reason="it needs an NVIDIA GPU")
    assert (status, "only XLA runs here (it needs an NVIDIA GPU)" in text) == (1, True)
    with kernels.target("cpu"), pytest.raises(RuntimeError, match=r"nothing to measure: .* it needs an NVIDIA GPU"):
        kernels.autotune(lambda x: kernels.max_pool(x, 2), jnp.zeros((1, 4, 4, 1)))
