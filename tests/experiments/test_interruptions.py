"""Real processes, killed for real: continued, they end with the same parameters as one that was never interrupted."""

from __future__ import annotations

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
# Long enough to be hit in the middle (about 250 steps), with a checkpoint every 11 steps, so that kills fall into saves too.
FLAGS = ["--epochs", "6", "--checkpoint-every", "0.25", "--evaluate-every", "2", "--seed", "3"]


def command(workdir: pathlib.Path) -> list[str]:
    return [sys.executable, "-m", "experiments.train", "lenet5", *FLAGS, "--workdir", str(workdir)]


def start(workdir: pathlib.Path) -> subprocess.Popen[str]:
    # One thread: the suite runs on two cores, and a reduction's order must not depend on how busy they are.
    return subprocess.Popen(command(workdir), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(workdir: pathlib.Path) -> dict:
    process = start(workdir)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return json.loads((workdir / "summary.json").read_text())


def wait_for_checkpoint(workdir: pathlib.Path, process: subprocess.Popen[str], after: int = 0) -> None:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        done = [int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdigit()]
        if max(done, default=-1) > after:
            return
        time.sleep(0.01)
    pytest.fail("no checkpoint appeared" if process.poll() is None else process.communicate()[0])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return finish(tmp_path_factory.mktemp("whole"))


def test_killed_at_random_moments(uninterrupted: dict, tmp_path: pathlib.Path) -> None:
    draw = random.Random(7)
    after = 0
    for _ in range(3):
        process = start(tmp_path)
        wait_for_checkpoint(tmp_path, process, after)
        time.sleep(draw.random() * 0.4)
        process.kill()
        process.communicate()
        after = max(int(p.name) for p in (tmp_path / "checkpoints").glob("*") if p.name.isdigit())
        if (tmp_path / "summary.json").exists():
            break
    assert finish(tmp_path)["parameters_sha256"] == uninterrupted["parameters_sha256"]
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if row["split"] == "train"]
    assert steps == sorted(set(steps)), "a step stands twice in metrics.jsonl"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_save_first(number: signal.Signals, uninterrupted: dict, tmp_path: pathlib.Path) -> None:
    process = start(tmp_path)
    wait_for_checkpoint(tmp_path, process)
    os.kill(process.pid, number)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 128 + number, output
    assert "saved; the same command continues" in output
    assert "Traceback" not in output
    stopped = int(output.split("at step ")[1].split(",")[0])
    assert (tmp_path / "checkpoints" / str(stopped)).is_dir()
    assert finish(tmp_path)["parameters_sha256"] == uninterrupted["parameters_sha256"]


def test_half_written_and_damaged_checkpoints_are_passed_over(uninterrupted: dict, tmp_path: pathlib.Path) -> None:
    process = start(tmp_path)
    wait_for_checkpoint(tmp_path, process, after=30)
    process.kill()
    process.communicate()
    saved = sorted(int(p.name) for p in (tmp_path / "checkpoints").glob("*") if p.name.isdigit())
    newest = tmp_path / "checkpoints" / str(saved[-1])
    largest = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0x55  # one damaged byte
    largest.write_bytes(content)
    (tmp_path / "checkpoints" / "999.orbax-checkpoint-tmp").mkdir()
    process = start(tmp_path)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert f"checkpoint of step {saved[-1]} is damaged and passed over" in output
    assert f"continuing at step {saved[-2]}" in output
    assert json.loads((tmp_path / "summary.json").read_text())["parameters_sha256"] == uninterrupted["parameters_sha256"]
