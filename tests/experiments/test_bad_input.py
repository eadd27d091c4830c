"""What a user can get wrong: one clear line, exit status 2, no traceback, nothing lost."""

from __future__ import annotations

import errno
import os
import pathlib
import subprocess
import sys

import pytest

from experiments import evaluate, train
from experiments.errors import UserError, explain, run
from experiments.recipes.recipe import Recipe

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "MODEL is missing"),
        (["lenet"], "model: 'lenet' is not known; did you mean lenet5"),
        (["lenet5", "--data", "digit"], "data: 'digit' is not known; did you mean digits"),
        (["lenet5", "--data", "digits:/nowhere"], "data: digits takes no path, '/nowhere' given"),
        (["lenet5", "--bach-size", "3"], "flag: '--bach-size' is not known; did you mean --batch-size"),
        (["lenet5", "--batch-size", "5000"], "batch_size: 5000 given, digits has 1433 training examples"),
        (["lenet5", "--batch-size", "0"], "batch_size: 0 given, a number above 0 is needed"),
        (["lenet5", "--learning-rate", "-1"], "learning_rate: -1.0 given"),
        (["lenet5", "--label-smoothing", "1"], "label_smoothing: 1.0 given, at least 0 and below 1"),
        (["lenet5", "--mesh", "rows=2"], "mesh: 'rows=2' given, it must read like data=4,model=2"),
        (["lenet5", "--mesh", "data=64"], "mesh: 'data=64' given"),
        (["lenet5", "--model-options", "dropuot=1"], "dropuot"),
        (["lenet5", "--data-options", "colour=1"], "data: digits takes no option colour"),
        (["lenet5", "--implementation", "triton"], "cannot run 'triton' here"),
        (["lenet5", "--coordinator", "localhost:1"], "--coordinator: given without --distributed"),
    ],
)
def test_one_line_and_status_two(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    where = ["--workdir", str(tmp_path / "run")] if arguments else []
    assert run(train.main, [*arguments, *where]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run" / "checkpoints").exists() or not list((tmp_path / "run" / "checkpoints").iterdir())


def test_a_value_of_the_wrong_kind_ends_with_status_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(train.main, ["lenet5", "--epochs", "many"]) == 2
    assert "--epochs: many given, a number is needed" in capsys.readouterr().err


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(train.main, ["lenet", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_help_explains_each_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        train.main(["lenet5", "--help"])
    shown = capsys.readouterr().out
    for name in Recipe.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in shown
    assert "Highest learning rate of the schedule" in shown


def test_a_workdir_that_cannot_be_written(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    assert run(train.main, ["lenet5", "--steps", "1", "--workdir", str(tmp_path / "file" / "run")]) == 2
    assert "workdir: " in capsys.readouterr().err


def test_permissions_and_full_disks_are_explained() -> None:
    assert explain(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a/b")).startswith("a/b: no space left")
    assert explain(PermissionError(errno.EACCES, "Permission denied", "a/b")).startswith("a/b: no permission")


def test_a_full_disk_loses_nothing(tmp_path: pathlib.Path) -> None:
    """A limit on the size of files stands in for a full disk: writing beyond it fails in the same places."""

    command = [sys.executable, "-m", "experiments.train", "lenet5", "--steps", "20", "--workdir", str(tmp_path / "run")]
    limited = ["bash", "-c", 'ulimit -f 150; exec "$@"', "limited", *command]
    process = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert process.returncode == 2, process.stderr
    last = process.stderr.strip().splitlines()[-1]
    assert last.startswith("error: checkpoint: step 20 could not be saved")
    assert "Traceback" not in process.stderr
    # With space again, the same command succeeds.
    assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=200, check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "source: nowhere is neither a workdir nor a weights file"),
        (["."], "workdir: . holds no run"),
        (["README.md"], "--model: needed for a weights file"),
    ],
)
def test_evaluate_names_what_is_wrong(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(evaluate.main, arguments) == 2
    assert message in capsys.readouterr().err


def test_damaged_settings_are_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "config.json").write_text('{"recipe": {')
    with pytest.raises(UserError, match="is damaged"):
        evaluate.load_run(tmp_path)
