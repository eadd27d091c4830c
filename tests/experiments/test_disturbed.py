"""What a machine does to a run: a clock set back, data cut short, a folder that cannot be written, a loss of power."""

from __future__ import annotations

import dataclasses
import io
import os
import pathlib
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import zoo
from experiments.errors import UserError
from experiments.recipes.recipe import Recipe
from experiments.training import folder, loop, run_files
from experiments.training.recorder import Recorder
from kernels.runtime import files

SMALL = Recipe("lenet5", "digits", batch_size=64, steps=6, evaluate_every=0.1, checkpoint_every=0.1, schedule="constant")


def train(workdir: pathlib.Path, **changes: Any) -> dict[str, Any]:
    return loop.train(dataclasses.replace(SMALL, workdir=str(workdir), **changes), Console(file=io.StringIO()))


def test_a_clock_set_back(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a year, between two parts of a run and within one: the same end, and the last step's checkpoint is the newest."""
    whole = train(tmp_path / "whole")
    train(tmp_path / "parts", steps=2)
    now, calls = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: now() - 365 * 86400 - 100 * next(calls))
    after = train(tmp_path / "parts")
    assert after["parameters_sha256"] == whole["parameters_sha256"]
    assert run_files.newest_checkpoint(tmp_path / "parts") == 6
    rows = run_files.read_metrics(tmp_path / "parts")
    assert [row["step"] for row in rows if row["split"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert all(row["examples_per_second"] > 0 for row in rows if row["split"] == "train")  # by a clock that only goes on
    assert train(tmp_path / "parts") == after


def test_a_file_cut_short_under_a_run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, what was saved stays, and once the file is whole again the run continues to the same end."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(20):
            values = rng.integers(0, 255, (40, 40, 3)).astype(np.uint8)
            Image.fromarray(values).save(tmp_path / "data" / name / f"{number}.png")
    options: dict[str, Any] = {"data": f"imagefolder:{tmp_path / 'data'}", "batch_size": 8, "steps": 12}
    options |= {"data_options": "size=32", "checkpoint_every": 0.5, "evaluate_every": 100}
    whole = train(tmp_path / "whole", **options)
    images = {path: path.read_bytes() for path in (tmp_path / "data").rglob("*.png")}

    def cut(*arguments: Any, save: Any = Recorder.save, **keywords: Any) -> None:
        save(*arguments, **keywords)
        for path, content in images.items():
            path.write_bytes(content[: len(content) // 2])

    with monkeypatch.context() as patched:
        patched.setattr(Recorder, "save", cut)
        with pytest.raises((UserError, ValueError), match=r"\d+\.png: cannot be read as an image"):
            train(tmp_path / "run", **options)
    saved = run_files.newest_checkpoint(tmp_path / "run")
    assert 0 < saved < 12
    for path, content in images.items():
        path.write_bytes(content)
    assert train(tmp_path / "run", **options)["parameters_sha256"] == whole["parameters_sha256"]


@pytest.mark.parametrize("workdir", ["/proc/run", "/sys/kernel/run", "/dev/null/run"])
def test_a_folder_that_cannot_be_written(workdir: str) -> None:
    with pytest.raises(UserError, match=r"^workdir: "):
        train(pathlib.Path(workdir))


def test_content_is_on_the_disk_before_its_name(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order that a loss of power needs: content, name, folder, and only then is what they replace deleted."""
    events: list[tuple[str, str]] = []
    sync, replace, rmtree = os.fsync, os.replace, folder.shutil.rmtree

    def named(descriptor: int) -> str:
        return pathlib.Path(os.readlink(f"/proc/self/fd/{descriptor}")).name

    def seen(kind: str, what: str, call: Any, *arguments: Any, **keywords: Any) -> None:
        events.append((kind, what))
        call(*arguments, **keywords)

    monkeypatch.setattr(os, "fsync", lambda fd: seen("fsync", named(fd), sync, fd))
    monkeypatch.setattr(
        os,
        "replace",
        lambda a, b: (events.append(("replace", f"{pathlib.Path(a).name} {pathlib.Path(b).name}")), replace(a, b))[1],
    )
    monkeypatch.setattr(os, "sync", lambda: events.append(("sync", "")))
    monkeypatch.setattr(
        folder.shutil, "rmtree", lambda path, **k: (events.append(("rmtree", pathlib.Path(path).name)), rmtree(path, **k))
    )

    (tmp_path / "x.part").write_text("x")
    files.put_in_place(tmp_path / "x.part", tmp_path / "x")
    assert events == [("fsync", "x.part"), ("replace", "x.part x"), ("fsync", tmp_path.name)]
    assert (tmp_path / "x").read_text() == "x"

    workdir = tmp_path / "run"
    train(workdir, steps=1)
    events.clear()
    train(workdir, steps=1, seed=1, resume=False)
    for part, name in (("config.partial", "config.json"), ("summary.partial", "summary.json")):
        at = events.index(("replace", f"{part} {name}"))
        assert events[at - 1] == ("fsync", part)
        assert events[at + 1] == ("fsync", "run")
    gone = events.index(("rmtree", folder.ASIDE))
    assert events[gone - 1] == ("sync", "")
    events.clear()
    zoo.save_weights(zoo.create_model("lenet5"), tmp_path / "m.safetensors")
    assert [kind for kind, _ in events] == ["fsync", "replace", "fsync"]
