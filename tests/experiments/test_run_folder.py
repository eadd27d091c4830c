"""Nothing that a run has left is deleted or changed unasked, and what somebody damaged is said in one line."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest
from rich.console import Console

from experiments.errors import UserError, run
from experiments.recipes import find
from experiments.recipes.recipe import Recipe
from experiments.training import checkpoints, folder, loop, run_files
from experiments.training.gan_task import GanTask
from experiments.training.restore import load_run

SMALL = Recipe(model="lenet5", data="digits", batch_size=64, steps=6, evaluate_every=0.25, checkpoint_every=0.125)


def train(workdir: pathlib.Path, **changes) -> tuple[dict, str]:
    console = Console(file=io.StringIO(), width=200)
    summary = loop.train(dataclasses.replace(SMALL, workdir=str(workdir), **changes), console)
    return summary, console.file.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("finished") / "run"
    train(workdir)
    return workdir


@pytest.fixture
def workdir(finished: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A finished run to do harm to."""
    return shutil.copytree(finished, tmp_path / "run")


def content(folder_: pathlib.Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder_)): p.read_bytes() for p in sorted(folder_.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 100_000},
        {"data": "imagefolder:/nowhere"},
        {"data": "imagefolder"},
        {"mesh": "data=64"},
        {"model_options": "dropuot=1"},
        {"data_options": "size=3"},
    ],
    ids=str,
)
def test_no_resume_deletes_nothing_before_all_else_stands(workdir: pathlib.Path, wrong: dict) -> None:
    before = content(workdir)
    with pytest.raises((UserError, TypeError)):
        train(workdir, resume=False, **wrong)
    assert content(workdir) == before


def test_no_resume_keeps_the_earlier_run_until_the_first_checkpoint(
    workdir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(workdir)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.Checkpoints, "save", lambda *_, **__: (_ for _ in ()).throw(UserError("no space left")))
        for _ in range(2):  # the second attempt does not take what the first one left for the earlier run
            with pytest.raises(UserError, match="no space left"):
                train(workdir, resume=False)
            assert content(workdir / folder.ASIDE) == before
    _, said = train(workdir, resume=False)
    assert f"is in {workdir}/.earlier/ until the first checkpoint" in said
    assert {p.name for p in workdir.iterdir()} == {p.split("/")[0] for p in before}


def test_what_was_set_aside_gives_way_to_what_has_a_checkpoint_since(workdir: pathlib.Path) -> None:
    """Killed between the first checkpoint and the second: the folder holds both, and the newer run is kept next."""
    older = workdir / folder.ASIDE
    older.mkdir()
    (older / "summary.json").write_text("{}")
    before = {name: data for name, data in content(workdir).items() if not name.startswith(folder.ASIDE)}
    assert folder.set_aside(workdir)
    assert content(older) == before


def test_a_move_that_was_cut_off_is_finished(workdir: pathlib.Path) -> None:
    before = content(workdir)
    (workdir / folder.MOVING).mkdir()
    for name in ("checkpoints", "summary.json"):
        (workdir / name).rename(workdir / folder.MOVING / name)
    folder.check_own(workdir)
    assert folder.set_aside(workdir)
    assert content(workdir / folder.ASIDE) == before
    assert [p.name for p in workdir.iterdir()] == [folder.ASIDE]


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize(
    "name", ["checkpoints/3/mine.txt", "samples/mine.png", "tensorboard/mine", "summary.json", "config.json"]
)
def test_files_of_others_are_refused(name: str, resume: bool, tmp_path: pathlib.Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    with pytest.raises(UserError, match=rf"workdir: .* holds .*{name.split('/')[0]}.* nothing was touched"):
        train(tmp_path, resume=resume)
    assert content(tmp_path) == {name: b"{}"}


def test_a_second_run_in_the_same_folder_is_refused(workdir: pathlib.Path) -> None:
    with folder.locked(workdir):
        before = content(workdir)
        for resume in (True, False):
            with pytest.raises(UserError, match=rf"another run is in .* \(process {os.getpid()} on .*\); wait for it"):
                train(workdir, resume=resume)
        assert content(workdir) == before
        assert load_run(workdir).step == 6  # who only reads may
    assert not (workdir / folder.LOCK).exists()


def test_a_lock_that_a_killed_run_left_holds_nobody(workdir: pathlib.Path) -> None:
    (workdir / folder.LOCK).write_text("process 1 on elsewhere")
    assert "Already finished" in train(workdir)[1]


def test_an_error_leaves_no_empty_folders(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="batch_size"):
        train(tmp_path / "a" / "b", batch_size=100_000)
    assert not (tmp_path / "a").exists()


def test_readers_change_nothing(workdir: pathlib.Path) -> None:
    """Least of all what a run that is saving at this moment has half written."""
    half = workdir / "checkpoints" / "7.orbax-checkpoint-tmp"
    half.mkdir()
    (half / "array").write_text("half")
    before = content(workdir)
    assert load_run(workdir).step == 6
    assert content(workdir) == before


def test_what_a_kill_kept_finish_from_making_is_made(workdir: pathlib.Path) -> None:
    before = json.loads((workdir / "summary.json").read_text())
    for name in ("curves.png", "summary.json", run_files.runs.MODEL):
        (workdir / name).unlink()
        summary, said = train(workdir)
        assert "continuing at step 6 of 6" in said
        assert (workdir / name).exists()
        assert summary["parameters_sha256"] == before["parameters_sha256"]


@pytest.mark.parametrize("name", ["step", "seconds", "evaluation", "feed"])
def test_no_part_of_a_checkpoint_can_be_changed(name: str, workdir: pathlib.Path) -> None:
    changed = 0
    for path in (workdir / "checkpoints" / "6").rglob("*"):
        if path.is_file() and b'"extra_digest"' in path.read_bytes():
            whole = json.loads(path.read_text())
            for holder in find_extra(whole):
                holder[name] = {"step": 5, "seconds": 0.5, "evaluation": {"loss": 0.0}, "feed": {"position": 1}}[name]
                changed += 1
            path.write_text(json.dumps(whole))
    assert changed == 1
    for other in (workdir / "checkpoints").iterdir():
        if other.name != "6":
            shutil.rmtree(other)
    with pytest.raises(UserError, match="checkpoint of step 6 is damaged"):
        load_run(workdir)


def find_extra(node: object) -> list[dict]:
    if not isinstance(node, dict):
        return []
    return ([node["extra"]] if "extra_digest" in node else []) + [e for v in node.values() for e in find_extra(v)]


DAMAGE: dict[str, tuple[str, Callable[[str], str]]] = {
    "config empty": ("config.json", lambda text: "{}"),
    "config list": ("config.json", lambda text: "[]"),
    "config foreign": ("config.json", lambda text: '{"recipe": 3}'),
    "config deep": ("config.json", lambda text: "[" * 100_000),
    "config cut": ("config.json", lambda text: text[:40]),
    "summary null": ("summary.json", lambda text: "null"),
    "summary number": ("summary.json", lambda text: "3"),
    "summary list": ("summary.json", lambda text: "[]"),
    "metrics without step": ("metrics.jsonl", lambda text: '{"split": "train", "loss": 1}\n' + text),
    "metrics garbage": ("metrics.jsonl", lambda text: text.replace("\n", "\n%&!\n", 1)),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_files_are_named_and_nothing_is_dropped(what: str, workdir: pathlib.Path) -> None:
    name, damage = DAMAGE[what]
    path = workdir / name
    path.write_text(damage(path.read_text()))
    (workdir / "curves.png").unlink()
    if name == "summary.json":
        (workdir / "curves.png").write_bytes(b"")  # then the run counts as finished, and its summary is shown
    before = content(workdir)
    with pytest.raises(UserError) as error:
        train(workdir)
    assert str(error.value).startswith("workdir: ")
    assert "\n" not in str(error.value)
    assert name in str(error.value)
    assert {k: v for k, v in content(workdir).items() if k.startswith("checkpoints") or k == name} == {
        k: v for k, v in before.items() if k.startswith("checkpoints") or k == name
    }


def test_a_gans_schedule_counts_updates() -> None:
    recipe = dataclasses.replace(find("gan_mlp"), accumulate=4, schedule="cosine", learning_rate=1e-3)
    from experiments import data

    task = GanTask(recipe, data.load(recipe.data, **recipe.options("data")), 400, 20, None)
    assert task.learning_rate(0) == pytest.approx(1e-3)
    assert task.learning_rate(399) == float(task.schedule(99)) < 1e-5


def test_control_c_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    assert run(main, []) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_control_c_while_an_extension_is_imported(tmp_path: pathlib.Path) -> None:
    """Its beginning in C++ makes another error of the exception, or crashes; here it is Python that does."""
    (tmp_path / "extension.py").write_text(
        "import os, signal, time\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    raise ImportError('an error while initializing the extension')\n"
    )
    code = "import sys\nfrom experiments.errors import run\nsys.exit(run(lambda _: __import__('extension') and 0, []))"
    environment = os.environ | {"PYTHONPATH": f"{pathlib.Path(__file__).parents[2]}:{tmp_path}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
