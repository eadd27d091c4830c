"""The same run on one device, on a mesh, and on two processes: the same losses up to the order of float32 sums."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "experiments.train", "lenet5", "--steps", "10", "--batch-size", "64", "--seed", "1"]


def start(workdir: pathlib.Path, *flags: str, devices: int) -> subprocess.Popen[str]:
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    command = [*COMMAND, "--workdir", str(workdir), *flags]
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def losses(workdir: pathlib.Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def finished(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


@pytest.mark.slow
def test_one_device_a_mesh_and_two_processes_agree(tmp_path: pathlib.Path) -> None:
    finished(start(tmp_path / "one", devices=1))
    finished(start(tmp_path / "mesh", "--mesh", "data=2,model=2", devices=4))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = ["--distributed", "--coordinator", address, "--processes", "2"]
    pair = [start(tmp_path / "two", *flags, "--process-id", str(i), devices=1) for i in range(2)]
    outputs = [finished(process) for process in pair]
    assert "Finished" in outputs[0]
    assert "Finished" not in outputs[1]
    expected = losses(tmp_path / "one")
    assert len(expected) == 11
    for name in ("mesh", "two"):
        # Ten steps of Adam amplify the rounding of sums taken in another order.
        assert losses(tmp_path / name) == pytest.approx(expected, rel=2e-4)
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        assert summary["steps"] == 10


def test_a_batch_that_does_not_divide_is_refused(tmp_path: pathlib.Path) -> None:
    output, _ = start(tmp_path, "--mesh", "data=3", devices=3).communicate(timeout=100)
    assert "batch_size: 64 given, a multiple of the 3 data devices is needed" in output
