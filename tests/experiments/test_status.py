"""What is said of the runs in a folder, while they run and afterwards."""

from __future__ import annotations

import pathlib
import shutil

import pytest

from experiments import status
from experiments.errors import run
from experiments.recipes.recipe import Recipe
from experiments.training import folder, loop


def files_of(root: pathlib.Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_runs_of_every_state(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "runs"
    recipe = Recipe("lenet5", "digits", batch_size=64, steps=2, evaluate_every=0.01, workdir=str(root / "a"))
    summary = loop.train(recipe)
    for name in ("deep/b", "c", "d [x]"):
        shutil.copytree(root / "a", root / name)
    (root / "deep" / "b" / "summary.json").unlink()
    (root / "d [x]" / "metrics.jsonl").write_text('{"loss": 1}\n{"step": 1}\n')
    shutil.copytree(root / "a", root / "c" / folder.ASIDE)  # of which nothing is said
    capsys.readouterr()
    before = files_of(root)
    with folder.locked(root / "c"):
        owner = status.owner_of(root / "c")
        found = {item.workdir.relative_to(root).as_posix(): item for item in status.runs_below(root)}
        assert run(status.main, [str(root)]) == 0
    printed = capsys.readouterr().out
    assert owner is not None
    assert owner.startswith("process ")
    assert {name: item.state for name, item in found.items()} == {
        "a": "finished", "c": "running", "d [x]": "damaged", "deep/b": "stopped",
    }  # fmt: skip
    for name in ("a", "c", "deep/b"):
        item = found[name]
        assert (item.model, item.data, item.step, item.steps) == ("lenet5", "digits", 2, 2)
        assert item.figures["accuracy"] == summary["eval_accuracy"]
    assert (found["a"].owner, found["c"].owner) == ("", owner)
    assert found["c"].examples_per_second is not None
    assert "line 1 is no row of metrics" in found["d [x]"].problem
    assert f"accuracy {summary['eval_accuracy']:.2%}" in printed
    assert "d [x]" in printed
    assert files_of(root) == before  # nothing was touched


def test_no_runs(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(status.main, [str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no runs in {tmp_path}/\n"
    assert run(status.main, [str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err == f"error: folder: {tmp_path / 'nowhere'} does not exist\n"
