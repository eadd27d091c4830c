"""Two real processes of one run, stopped and killed for real: they end together, and the same command goes on."""

from __future__ import annotations

import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import time

import pytest

from experiments.training.processes import LOST

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
# 66 steps, a checkpoint every 11.
FLAGS = ["--epochs", "1.5", "--batch-size", "32", "--checkpoint-every", "0.25", "--evaluate-every", "9", "--seed", "3"]
LONG = ["--epochs", "200", *FLAGS[2:]]
CPU = {"JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu"}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def slurm(index: int, port: int) -> dict[str, str]:
    return {
        "SLURM_JOB_ID": "4711", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2", "SLURM_PROCID": str(index),
        "SLURM_LOCALID": str(index), "JAX_COORDINATOR_PORT": str(port),
    }  # fmt: skip


def open_mpi(index: int, port: int) -> dict[str, str]:
    return {
        "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911", "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": str(index), "OMPI_COMM_WORLD_LOCAL_RANK": str(index), "JAX_COORDINATOR_PORT": str(port),
    }  # fmt: skip


def launch(workdir: pathlib.Path, flags: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "experiments.train", "lenet5", *flags, "--workdir", str(workdir)]
    environment = os.environ | CPU | environment
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def pair(workdir: pathlib.Path, flags: list[str], cluster=None) -> list[subprocess.Popen[str]]:
    """Both processes, told of each other by a scheduler's variables or else by flags."""
    port = free_port()
    if cluster:
        return [launch(workdir, [*flags, "--distributed"], cluster(index, port)) for index in range(2)]
    joined = ["--distributed", "--coordinator", f"127.0.0.1:{port}", "--processes", "2"]
    return [launch(workdir, [*flags, *joined, "--process-id", str(i)], {}) for i in range(2)]


def results(processes: list[subprocess.Popen[str]], limit: float = 200) -> list[tuple[int, str, str]]:
    """(status, output, errors) of each."""
    found = []
    for process in processes:
        output, errors = process.communicate(timeout=limit)
        found.append((process.returncode, output, errors))
    return found


def saved(workdir: pathlib.Path) -> list[int]:
    return sorted(int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdigit())


def wait_for_checkpoint(workdir: pathlib.Path, processes: list[subprocess.Popen[str]], after: int = 0) -> None:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and all(process.poll() is None for process in processes):
        if max(saved(workdir), default=-1) > after:
            return
        time.sleep(0.02)
    for process in processes:
        process.kill()
    pytest.fail(f"no checkpoint appeared: {results(processes)}")


def summary(workdir: pathlib.Path) -> dict:
    return json.loads((workdir / "summary.json").read_text())


def test_one_gets_a_signal_and_all_stop_at_the_same_step(tmp_path: pathlib.Path) -> None:
    """Found by the variables of Slurm and of Open MPI; continued, the run ends bit for bit as one that was never stopped.
    Made longer, it goes on on four devices of one process."""
    whole = results(pair(tmp_path / "whole", FLAGS, slurm))
    assert [status for status, _, _ in whole] == [0, 0], whole
    assert "Gloo" not in str(whole)
    processes = pair(tmp_path / "run", FLAGS, open_mpi)
    wait_for_checkpoint(tmp_path / "run", processes)
    os.kill(processes[1].pid, signal.SIGTERM)
    stopped = results(processes)
    assert [status for status, _, _ in stopped] == [143, 143], stopped
    lines = {errors.strip() for _, _, errors in stopped}
    assert lines == {f"stopped by SIGTERM at step {saved(tmp_path / 'run')[-1]}, saved; the same command continues"}
    done = results(pair(tmp_path / "run", FLAGS))
    assert [status for status, _, _ in done] == [0, 0], done
    assert "continuing at step" in done[0][1]
    assert summary(tmp_path / "run")["parameters_sha256"] == summary(tmp_path / "whole")["parameters_sha256"]
    longer = ["--epochs", "1.6", *FLAGS[2:], "--mesh", "data=2,model=2"]
    ((status, output, errors),) = results([launch(tmp_path / "run", longer, {"JAX_NUM_CPU_DEVICES": "4"})])
    assert status == 0, output + errors
    assert "on data=2, model=2 in 1 process, data=2, model=1 in 2 processes before" in output


@pytest.mark.parametrize(("number", "victim"), [(signal.SIGKILL, 1), (signal.SIGKILL, 0), (signal.SIGSTOP, 1)])
def test_one_is_lost_and_the_other_ends_with_a_line(number: signal.Signals, victim: int, tmp_path: pathlib.Path) -> None:
    processes = pair(tmp_path, LONG)
    wait_for_checkpoint(tmp_path, processes)
    os.kill(processes[victim].pid, number)
    began = time.monotonic()
    try:
        ((status, output, errors),) = results([processes[1 - victim]], limit=60)
    finally:
        processes[victim].kill()
        processes[victim].communicate()
    assert time.monotonic() - began < 20
    assert status == LOST, output + errors
    assert len(errors.strip().splitlines()) == 1, errors
    assert "another process of this run ended or was lost" in errors


@pytest.mark.parametrize("victim", [0, 1])
def test_a_full_disk_of_one_ends_both(victim: int, tmp_path: pathlib.Path) -> None:
    """The other waits for it in the save until it has ended."""
    processes = pair(tmp_path, LONG)
    wait_for_checkpoint(tmp_path, processes)
    resource.prlimit(processes[victim].pid, resource.RLIMIT_FSIZE, (4096, 4096))  # met by its next large write
    found = results(processes, limit=60)
    assert found[victim][0] == 2, found
    assert "could not be saved" in found[victim][2] or "no space left" in found[victim][2], found
    assert found[1 - victim][0] == LOST, found
    assert [len(errors.strip().splitlines()) for _, _, errors in found] == [1, 1], found


def test_an_error_of_all_is_said_once_by_each(tmp_path: pathlib.Path) -> None:
    found = results(pair(tmp_path, [*FLAGS, "--mesh", "data=1"]), limit=100)
    assert [status for status, _, _ in found] == [2, 2]
    for _, _, errors in found:
        assert errors.startswith("error: mesh: 'data=1' given, 2 processes share it")
        assert len(errors.splitlines()) == 1


def test_both_end_early_at_the_same_step_and_keep_the_best(tmp_path: pathlib.Path) -> None:
    still = ["--learning-rate", "1e-12", "--early-stop", "accuracy:2", "--best", "accuracy", "--evaluate-every", "0.125"]
    watched = ["--profile", "3", "--debug-nans", "--checkpoint-every", "9", "--batch-size", "32", "--epochs", "3"]
    found = results(pair(tmp_path, [*still, *watched]))
    assert [(status, errors) for status, _, errors in found] == [(0, ""), (0, "")], found
    done = summary(tmp_path)
    assert (done["steps"], done["best_step"]) == (18, 6)  # 5.5 steps, rounded, between evaluations
    assert saved(tmp_path) == [6, 18]
    assert "stopped early at step 18" in found[0][1]
    assert "3 steps traced" in found[0][1]
