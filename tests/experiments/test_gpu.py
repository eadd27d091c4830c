"""python -m experiments.gpu: the parts run in order whatever becomes of each, and one page says what was found."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import pathlib

import pytest

from experiments import gpu
from experiments.errors import run
from kernels.commands import check
from kernels.runtime import devices

DESCRIPTION = check.Description(dataclasses.replace(devices.H200, kind="nvidia-made-up"), {"jax": "1.2"}, {})
TUNED = {
    "checked": {
        "lstm": {
            "triton": {"worst": {}, "verdict": "timed out", "reason": "nothing heard | at all"},
            "xla": {"worst": {"float32": 1e-7}, "verdict": "right", "reason": ""},
        }
    },
    "operators": {
        "lstm": {"1x2": {"implementation": "xla", "seconds": {"xla": 1.0, "cudnn": 3.0}}, "3": {"config": {"warps": 4}}},
    },
}


@pytest.fixture
def folders(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setattr(gpu, "TUNED", tmp_path / "tuned")
    monkeypatch.setattr(gpu, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(check, "describe", lambda: DESCRIPTION)
    programs = {
        "check": "import os; print('checked'); print(os.environ['JAX_KERNEL_ZOO_CACHE'])",
        "test": "print('1 failed'); raise SystemExit(1)",
        "guide": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "tune": "print('tuned')",
    }
    made = {name: gpu.Part(name, ("-c", program)) for name, program in programs.items()}
    monkeypatch.setattr(gpu, "parts", lambda peers, minutes: made)
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "nvidia-made-up.json").write_text(json.dumps(TUNED))
    return tmp_path


def test_a_part_that_fails_does_not_end_the_others(folders: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(gpu.main, []) == 1
    page = (folders / "results" / "nvidia-made-up" / "gpu.md").read_text()
    statuses = {row.split(" | ")[0]: row.split(" | ")[1] for row in page.splitlines() if row.count(" | ") == 3}
    assert {name: statuses[f"| {name}"] for name in ("check", "test", "guide", "tune")} == {
        "check": "ok",
        "test": "1",
        "guide": "-11",
        "tune": "ok",
    }
    assert f"| {folders / 'tuned'} |" in page  # where what is found is shipped from
    assert "| lstm | triton |  |  |  | timed out: nothing heard \\| at all |" in page
    assert "| lstm | xla | 1.0e-07 |  |  | right |" in page
    assert "| lstm | 1x2 | xla | 3.00 |" in page
    assert "132 multiprocessors, 50 MiB of L2 cache, compute capability 9.0; jax 1.2" in page
    assert "1 failed" in capsys.readouterr().out


def test_one_part(folders: pathlib.Path) -> None:
    assert run(gpu.main, ["tune"]) == 0
    page = (folders / "results" / "nvidia-made-up" / "gpu.md").read_text()
    assert "| tune | ok |" in page
    assert "| check |" not in page


def test_bad_arguments_and_no_gpu(
    folders: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(gpu.main, ["tun"]) == 2
    assert "tune" in capsys.readouterr().err
    assert run(gpu.main, ["--minutes", "0"]) == 2
    cpu = dataclasses.replace(DESCRIPTION, device=devices.CPU)
    monkeypatch.setattr(check, "describe", lambda: cpu)
    assert run(gpu.main, []) == 2
    assert "no GPU: JAX runs on cpu here" in capsys.readouterr().err


def test_every_part_is_a_command_that_is_there() -> None:
    for part in gpu.parts("torch", 9).values():
        assert part.arguments[0] == "-m"
        assert importlib.util.find_spec(part.arguments[1]) is not None
