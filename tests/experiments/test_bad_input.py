"""What a user can get wrong: one clear line, exit status 2, no traceback, nothing lost."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from experiments import evaluate, train
from experiments.errors import UserError, explain, run
from experiments.flags import number, output, whole
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
        (["lenet5", "--epochs", "inf"], "epochs: inf given, a finite number is needed"),
        (["lenet5", "--epochs", "1e400"], "epochs: inf given, a finite number is needed"),
        (["lenet5", "--epochs", "1e300"], "epochs: 1e+300 given, which is 2**31 steps or more"),
        (["lenet5", "--steps", str(2**31)], "steps: 2147483648 given, a number below 2**31 is needed"),
        (["lenet5", "--evaluate-every", "inf"], "evaluate_every: inf given"),
        (["lenet5", "--checkpoint-every", "inf"], "checkpoint_every: inf given"),
        (["lenet5", "--warmup-epochs", "inf"], "warmup_epochs: inf given"),
        (["lenet5", "--learning-rate", "1e300"], "learning_rate: 1e+300 given, at most 1e+30"),
        (["lenet5", "--seed", str(2**80)], f"seed: {2**80} given, 0 to 4294967294 is needed"),
        (["lenet5", "--seed", "-1"], "seed: -1 given"),
        (["lenet5", "--accumulate", "1000"], "accumulate: 1000 given, the run has 880 steps"),
        (["lenet5", "--data-options", "size=10000000"], "size: 10000000 given, 8 to 256 is needed"),
        (["lenet5", "--data-options", "shift=99"], "shift: 99 given, 0 to 31 is needed"),
        (["lenet5", "--data-options", "size=abc"], "data_options: size: 'abc' given, a whole number is needed"),
        (["lenet5", "--data-options", "size=True"], "data_options: size: True given, a whole number is needed"),
        (["lenet5", "--data-options", "size=16,size=32"], "'size=32' given, NAME=VALUE is needed once"),
        (["lenet5", "--task-options", "x=1"], "task_options: x not known; classification takes none"),
        (["lenet5", "--mesh", "data=1,data=1"], "mesh: 'data=1,data=1' given, it must read like"),
        (["lenet5", "--mesh", "data=²"], "mesh: 'data=²' given, it must read like"),
        (["lenet5", "--data", f"text:{ROOT / 'LICENSE'}"], "data: text has text, classification of lenet5 needs images"),
        (["lenet5", "--task", "tagging"], "data: digits has images, tagging of lenet5 needs tags"),
        (["lenet5", "--model-options", "num_classes=3"], "num_classes=3 given, digits makes it 10; leave it out"),
        (["lenet5", "--model-options", "rngs=3"], "model_options: rngs given, --seed says that"),
        (["gan_mlp", "--model-options", "hidden=10000000"], "a model of 16,910,000,785 parameters, at most 4,294,967,296"),
        (["gan_mlp", "--task-options", "r1=nan"], "task_options: r1: 'nan' given, a finite number is needed"),
        (["gan_mlp", "--task-options", "conditional=3"], "task_options: conditional: 3 given, True or False is needed"),
        (["lenet5", "--optimizer", "adm"], "--optimizer: invalid choice: 'adm' (choose from"),
        (["lenet5", "--profile", "0"], "profile: 0 given, a number above 0 is needed"),
        (
            ["lenet5", "--early-stop", "acuracy:3"],
            "early_stop: 'acuracy' given, the figures on the test data are loss (lower is",
        ),
        (["lenet5", "--early-stop", "loss:-1"], "early_stop: 'loss:-1' given, FIGURE:PATIENCE with 1 evaluation or more"),
        (
            ["lenet5", "--best", "fid"],
            "best: 'fid' given, the figures on the test data are loss (lower is better), accuracy (higher",
        ),
        (["lenet5", "--tracker", "wandb"], "tracker: 'wandb' given, tensorboard, none or MODULE:CLASS is needed"),
        (["lenet5", "--log-level", "loud"], "--log-level: invalid choice: 'loud' (choose from"),
        (["lenet5", "5"], "'5': not expected there"),
        (["lenet5", "--epochs"], "--epochs: expected one argument"),
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


COMMANDS = {
    "train": (["lenet5", "--epochs", "x"], "--epochs: x given, a number is needed"),
    "evaluate": (["runs/x", "--worst", "-5"], "--worst: -5 given, 0 to 1000 is needed"),
    "compare": (["operators", "--rounds", "0"], "--rounds: 0 given, 1 to 10000 is needed"),
    "inspect": (["lenet5", "--batch-size", str(10**20)], "--batch-size: 100000000000000000000 given, 1 to 1048576"),
    "guide.__main__": (["list", "--quikc"], "flag: '--quikc' is not known; did you mean --quick"),
    "execute": (["--arch", "sm_1"], "--arch: 'sm_1' is not known; did you mean"),
    "gpu": (["--minutes", "inf"], "--minutes: inf given, a number above 0 is needed"),
    "report": (["--chek"], "flag: '--chek' is not known; did you mean --check"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_names_what_is_wrong_and_has_help(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main = importlib.import_module(f"experiments.{command}").main
    arguments, message = COMMANDS[command]
    assert run(main, arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
    monkeypatch.setenv("COLUMNS", "110")
    with pytest.raises(SystemExit, match="0"):
        main([*arguments[:1], "--help"] if command == "train" else ["--help"])
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) <= 50
    assert shown[-1].startswith(f"example: python -m experiments.{command.removesuffix('.__main__')}")


@pytest.mark.parametrize(
    ("parse", "text", "found"),
    [
        (whole(0, 9), "9", 9),
        (whole(0, 9), "10", "10 given, 0 to 9 is needed"),
        (whole(0), "1.5", "1.5 given, a whole number, 0 or more is needed"),
        (number(0, 1, above=True), "1", 1.0),
        (number(0, 1, above=True), "0", "0 given, a number above 0, at most 1, is needed"),
        (number(0), "nan", "nan given, 0 or more is needed"),
        (number(0), "1e400", "1e400 given, 0 or more is needed"),
        (output, "/nowhere/x.png", "/nowhere/x.png given, but there is no folder /nowhere"),
        (output, "x.png", pathlib.Path("x.png")),
    ],
)
def test_kinds_of_values(parse: Any, text: str, found: Any) -> None:
    if not isinstance(found, str):
        assert parse(text) == found
        return
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        parse(text)
    assert str(caught.value) == found


def test_memory_that_runs_out_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(error: Exception) -> Callable[[list[str]], int]:
        def main(_: list[str]) -> int:
            raise error

        return main

    for error in (MemoryError("no room"), RuntimeError("RESOURCE_EXHAUSTED: no room"), OverflowError("no room")):
        assert run(fails(error), []) == 2
        assert capsys.readouterr().err.endswith("no room\n")
    with pytest.raises(RuntimeError, match="a defect"):
        run(fails(RuntimeError("a defect")), [])


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(train.main, ["lenet", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_help_explains_each_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        train.main(["lenet5", "--help"])
    shown = capsys.readouterr().out
    for name in Recipe.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in shown
    assert "Peak learning rate of the schedule" in shown


def test_a_workdir_that_cannot_be_written(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    assert run(train.main, ["lenet5", "--steps", "1", "--workdir", str(tmp_path / "file" / "run")]) == 2
    assert "workdir: " in capsys.readouterr().err


def test_permissions_and_full_disks_are_explained() -> None:
    assert explain(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a/b")).startswith("a/b: no space left")
    assert explain(PermissionError(errno.EACCES, "Permission denied", "a/b")).startswith("a/b: no permission")
    told = "OUT_OF_RANGE: Error writing local file \"a/b\": Failed to write 8091 bytes to file 45: [os_error_code='27']"
    assert explain(ValueError(told)) == "a/b: no space left to write to (File too large)"


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
