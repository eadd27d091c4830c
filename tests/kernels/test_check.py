"""python -m kernels check: a kernel that hangs, crashes or is wrong is a line of its table; what was right is remembered."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import kernels
from kernels.__main__ import main as command
from kernels.commands import cases, check, comparison, processes
from kernels.runtime import devices, dispatch, measured

DEVICE = dataclasses.replace(devices.H200, kind="nvidia-made-up", cores=16)
# What a worker says and does, by the operator that it is started for.
WORKER = """
import json, os, signal, subprocess, sys, time
say = lambda **content: print(json.dumps(content), flush=True)
what = sys.argv[2] if len(sys.argv) > 2 else ""
if sys.argv[1] == "describe":
    say(device=DEVICE, versions={"jax": "1"})
    available = {"xla": None, "triton": None, "cudnn": "it is not there", "interpret": None, "ptx": None}
    for operator in ("batch_norm_act", "lstm", "max_pool", "conv", "rnn"):
        say(operator=operator, available=available)
    sys.exit()
print("a line of some library")
say(begun="first", dtype="float32")
say(case="first", dtype="float32", error=1e-7)
say(begun="second", dtype="bfloat16")
if what == "lstm":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    say(child=child.pid)
    time.sleep(600)
if what == "rnn":
    os.kill(os.getpid(), signal.SIGSEGV)
if what == "conv":
    raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS")
if what == "max_pool":
    say(case="second", dtype="bfloat16", wrong="result 0: off by 2")
    say(case="third", dtype="bfloat16", wrong="result 1: off by 3")
if what == "batch_norm_act":
    say(case="second", dtype="bfloat16", error=3e-3)
    say(case="second", dtype="float16", refused="it takes no float16")
if what == "refuses":
    pass
"""
DEVICE_TEXT = json.dumps(dataclasses.asdict(DEVICE))


def worker(*arguments):
    return [sys.executable, "-c", WORKER.replace("DEVICE", DEVICE_TEXT), *arguments]


def checked(*operators, limit=60.0):
    return list(check.check([(operator, "triton") for operator in operators], limit, worker))


def test_what_goes_wrong_is_a_line():
    rows = {row.operator: row for row in checked("batch_norm_act", "max_pool", "rnn", "conv")}
    assert rows["batch_norm_act"] == check.Row(
        "batch_norm_act", "triton", {"float32": 1e-7, "bfloat16": 3e-3}, "right", "it takes no float16"
    )
    assert (rows["max_pool"].verdict, rows["max_pool"].reason) == (
        "wrong",
        "second, bfloat16: result 0: off by 2 (and 1 more)",
    )
    assert (rows["rnn"].verdict, rows["rnn"].reason) == ("crashed", "SIGSEGV in second, bfloat16")
    assert (rows["conv"].verdict, rows["conv"].reason) == (
        "failed",
        "RuntimeError: CUDA_ERROR_ILLEGAL_ADDRESS in second, bfloat16",
    )


def test_one_that_hangs_is_ended_with_all_it_started():
    said = []
    end = processes.run(worker("check", "lstm", "triton"), 3.0, said.append)
    assert (end.verdict, end.reason) == ("timed out", "nothing heard for 3 s")
    child = next(line["child"] for line in said if "child" in line)
    for _ in range(100):  # a killed process is there until its parent has been told
        try:
            with open(f"/proc/{child}/stat") as stream:
                state = stream.read().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            break
        if state == "Z":
            break
        time.sleep(0.1)
    else:
        os.kill(child, signal.SIGKILL)
        pytest.fail("the process that it started still runs")
    (row,) = checked("lstm", limit=3.0)
    assert (row.verdict, row.reason) == ("timed out", "nothing heard for 3 s in second, bfloat16")


def run(monkeypatch, folder, *operators, limit=60.0):
    monkeypatch.setenv(measured.VARIABLE, str(folder))
    text = io.StringIO()
    status = check.main(operators, (), limit, Console(file=text, width=100), worker)
    return status, text.getvalue()


@pytest.mark.parametrize(("device", "unasked"), [(DEVICE, ["xla", "triton"]), (devices.CPU, ["xla", "interpret"])])
def test_what_runs_kernels_on_the_cpu_is_checked_where_it_is_asked_for(device, unasked):
    """But for the interpreter, which is all that there is to check without a GPU."""
    available = {"xla": None, "triton": None, "interpret": None, "ptx": None}
    if device is devices.CPU:
        available["triton"] = "it needs an NVIDIA GPU"
    tasks = lambda *names: check.tasks(check.Description(device, {}, {"mlp": available}), ["mlp"], names)
    assert tasks() == [("mlp", name) for name in unasked]
    for name in dispatch.ON_HOST:
        assert tasks(name) == [("mlp", name)]


def test_the_command_remembers_what_was_right(monkeypatch, tmp_path):
    """And a kernel with a barrier is then chosen by itself, on that device and no other."""
    with kernels.target(DEVICE):
        monkeypatch.setenv(measured.VARIABLE, str(tmp_path))
        assert dispatch.by_itself("batch_norm_act")[0] == "xla"
    status, text = run(monkeypatch, tmp_path, "batch_norm_act")
    assert status == 0
    # What runs on the CPU is left out on a GPU, and what does not run there.
    assert "2 of 2 without a fault" in text
    assert "3.0e-03" in text
    assert str(tmp_path / "nvidia-made-up.json") in text
    with kernels.target(DEVICE):
        assert dispatch.by_itself("batch_norm_act")[0] == "triton"
        assert dispatch.by_itself("lstm")[0] == "xla"
    with kernels.target(dataclasses.replace(DEVICE, cores=8)):  # a slice of the same name
        assert dispatch.by_itself("batch_norm_act")[0] == "xla"
    status, text = run(monkeypatch, tmp_path, "batch_norm_act", "conv")
    assert status == 1
    assert "conv triton, failed: RuntimeError: CUDA_ERROR_ILLEGAL_ADDRESS" in text
    written = json.loads((tmp_path / "nvidia-made-up.json").read_text())["checked"]
    assert written["conv"]["triton"]["verdict"] == "failed"
    assert written["batch_norm_act"]["triton"]["worst"] == {"float32": 1e-7, "bfloat16": 3e-3}


def test_a_cache_that_cannot_be_written_is_said(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    status, text = run(monkeypatch, tmp_path / "file" / "cache", "batch_norm_act")
    assert status == 1
    assert "2 of 2 without a fault" in text
    assert "cannot be written" in text
    assert measured.VARIABLE in text


@pytest.mark.parametrize("content", ["", "{", "[]", '{"operators": 3}', '{"operators": null, "cores": 1}', "\x00\xff"])
def test_a_damaged_file_is_passed_over(monkeypatch, tmp_path, content):
    monkeypatch.setenv(measured.VARIABLE, str(tmp_path))
    path = tmp_path / f"{DEVICE.kind}.json"
    path.write_bytes(content.encode("latin-1"))
    measured.forget()
    with kernels.target(DEVICE):
        with pytest.warns(UserWarning, match=r"nvidia-made-up\.json: not read"):
            assert dispatch.by_itself("batch_norm_act")[0] == "xla"
        dispatch.by_itself("batch_norm_act")  # said once
    with pytest.warns(UserWarning, match="not read"):
        measured.update(DEVICE, lambda found: found["operators"].update(op={"key": {}}))
    assert measured.tuned(DEVICE) == {"op": {"key": {}}}


def test_a_device_that_does_not_start_is_said(capsys):
    with pytest.raises(check.NoDeviceError, match="failed: RuntimeError: no GPU"):
        check.describe(60, lambda *_: [sys.executable, "-c", "raise RuntimeError('no GPU')"])


@pytest.mark.parametrize("arguments", [["check", "softmax"], ["tune", "--minutes", "0"], ["check", "--limit", "-1"], []])
def test_bad_arguments(capsys, arguments):
    with pytest.raises(SystemExit) as end:
        command(arguments)
    assert end.value.code == 2
    assert capsys.readouterr().err


def test_the_command_itself(capsys):
    """A real worker: the interpreter against float64."""
    assert command(["check", "mlp", "--implementation", "interpret"]) == 0
    assert "1 of 1 without a fault" in capsys.readouterr().out


def test_list(capsys):
    with kernels.target("h100"):
        assert command(["list"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "nvidia-h100-80gb-hbm3: 132 multiprocessors, 50 MiB of L2 cache" in shown
    assert "has not passed" in shown.replace("\n", " ")


def test_every_operator_has_cases():
    assert {case.operator for case in cases.SMALL} == set(dispatch.operators())
    hand_written = {name for name in dispatch.operators() if "triton" in kernels.available(name)}
    assert {case.operator for case in cases.LARGE} == hand_written
    for operator in hand_written:
        assert len(cases.to_check(operator, True)) == len(cases.to_check(operator, False)) + 1


@pytest.mark.parametrize("case", [c for c in cases.SMALL if c.operator in ("mlp", "max_pool")], ids=lambda c: c.name)
def test_a_wrong_result_is_found(case):
    arguments = case.draw(jnp.float32)
    expected = comparison.exact(case, arguments)
    found = [np.asarray(a) for a in comparison.results(case, arguments, "xla")]
    assert comparison.worst_error(case, "float32", found, expected) < 1e-5
    for index in range(len(found)):
        for value, message in ((1.0, "off by"), (np.nan, "NaN or infinity")):
            spoiled = [a.copy() for a in found]
            spoiled[index].flat[-1] += value
            with pytest.raises(comparison.WrongError, match=f"result {index}: .*{message}"):
                comparison.worst_error(case, "float32", spoiled, expected)
