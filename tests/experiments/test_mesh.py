"""The same runs on one device, on meshes of several, and on two processes: the same losses up to the order of float32 sums."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys
from typing import Any

import pytest

from experiments.training import mesh

ROOT = pathlib.Path(__file__).parents[2]
WORKER = str(pathlib.Path(__file__).with_name("several_processes.py"))
# A CNN, one with batch norm, an LSTM, a tagger and GANs. Plain SGD: Adam divides by the root of a gradient's square, and so
# makes a rounding as large as a step where a gradient is nearly zero.
SGD: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.01, "schedule": "constant", "seed": 1, "ema": None}
RUNS: dict[str, dict[str, Any]] = {
    "lenet5": {"steps": 50, "batch_size": 32},
    "resnet20_cifar": {"steps": 4, "batch_size": 8, "evaluate_every": 100, "learning_rate": 1e-3},
    "lstm_classifier": {"steps": 50, "batch_size": 16},
    "bilstm_tagger": {"steps": 50, "batch_size": 8, "evaluate_every": 100},
    "gan_mlp": {"steps": 50, "batch_size": 32, "learning_rate": 1e-3},
}
MESHES = ("data=4", "data=2,model=2")


def settings(folder: pathlib.Path, layout: str) -> list[dict[str, Any]]:
    """All runs on one mesh; the GAN is judged by the LeNet trained before it."""
    found = [SGD | run | {"model": name, "mesh": layout, "workdir": str(folder / name)} for name, run in RUNS.items()]
    found[-1]["task_options"] = f"judge={folder / 'lenet5'}"
    return found


def start(runs: list[dict[str, Any]], *, devices: int, count: int = 1) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "PYTHONPATH": str(ROOT)}
    return [
        subprocess.Popen(
            [sys.executable, WORKER, json.dumps(runs), address, str(count), str(index)],
            cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for index in range(count)
    ]  # fmt: skip


def rows(workdir: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_device_meshes_and_two_processes_agree(tmp_path: pathlib.Path) -> None:
    started = {
        "one": start(settings(tmp_path / "one", "data=1"), devices=1),
        "mesh": start(settings(tmp_path / "mesh", MESHES[1]), devices=4),
        "pair": start([s for m in MESHES for s in settings(tmp_path / "pair" / m, m)], devices=2, count=2),
    }
    for processes in started.values():
        for process in processes:
            output, _ = process.communicate(timeout=800)
            assert process.returncode == 0, output
            assert "Gloo" not in output
    for name, run in RUNS.items():
        expected = [row["loss"] for row in rows(tmp_path / "one" / name) if row["split"] == "train"]
        assert len(expected) == run["steps"]
        for other in ("mesh", *(f"pair/{layout}" for layout in MESHES)):
            losses = [row["loss"] for row in rows(tmp_path / other / name) if row["split"] == "train"]
            # Sums over a batch in another order: some last bits of float32 in each of 50 steps.
            assert losses == pytest.approx(expected, rel=1e-5), (other, name)
    tests = [row for row in rows(tmp_path / "pair" / MESHES[0] / "gan_mlp") if row["split"] == "test"]
    assert tests[-1]["real_precision"] > 0
    assert (tmp_path / "pair" / MESHES[0] / "gan_mlp" / "samples.png").exists()


def test_a_batch_that_does_not_divide_is_refused(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-m", "experiments.train", "lenet5", "--batch-size", "64", "--mesh", "data=3"]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "3"}
    done = subprocess.run(
        [*command, "--workdir", str(tmp_path)], cwd=ROOT, env=environment, text=True, capture_output=True, timeout=100
    )
    assert "batch_size: 64 given, a multiple of the 3 data devices is needed" in done.stderr


def test_other_devices_are_said() -> None:
    pair, one = {"data": 2, "model": 1, "processes": 2}, {"data": 4, "model": 1, "processes": 1}
    assert mesh.compare(None, one) == mesh.compare(one, one) == ""
    line = mesh.compare(pair, one)
    assert line.startswith("on data=4, model=1 in 1 process, data=2, model=1 in 2 processes before")
