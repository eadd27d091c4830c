"""The same runs on one device, on meshes of several, and on two processes: the same losses up to the order of float32 sums."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys
import types
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from experiments.training import mesh

ROOT = pathlib.Path(__file__).parents[2]
WORKER = str(pathlib.Path(__file__).with_name("several_processes.py"))
# A CNN, one with batch norm, an LSTM, a tagger and GANs. Plain SGD: Adam divides by the root of a gradient's square, and so
# makes a rounding as large as a step where a gradient is nearly zero.
SGD: dict[str, Any] = {
    "optimizer": "sgd",
    "momentum": 0.0,
    "learning_rate": 0.01,
    "schedule": "constant",
    "seed": 1,
    "ema": None,
}
RUNS: dict[str, dict[str, Any]] = {
    "lenet5": {"steps": 50, "batch_size": 32},
    "resnet20_cifar": {"steps": 3, "batch_size": 8, "learning_rate": 1e-4},
    "lstm_classifier": {"steps": 50, "batch_size": 16},
    "bilstm_tagger": {"steps": 50, "batch_size": 8, "data_options": "longest=12"},
    "gan_mlp": {"steps": 50, "batch_size": 32, "learning_rate": 1e-3, "steps_per_call": 1},
    "dcgan": {
        "steps": 3,
        "batch_size": 16,
        "learning_rate": 1e-4,
        "model_options": "image_size=32,generator_width=8,discriminator_width=8",
    },
}
RARELY = {"evaluate_every": 100, "checkpoint_every": 100}  # epochs


def settings(folder: pathlib.Path, layout: str, models: Iterable[str] = RUNS) -> list[dict[str, Any]]:
    """Runs on one mesh; the tagger's data lie beside `folder`, and the GAN is judged by the LeNet trained before it."""
    found = []
    for name in models:
        run = SGD | RARELY | RUNS[name] | {"model": name, "mesh": layout, "workdir": str(folder / name)}
        if name == "bilstm_tagger":
            run["data"] = f"tagging:{folder.parent / 'tags.tsv'}"
        if "gan" in name:
            run["task_options"] = f"judge={folder / 'lenet5'}"
        found.append(run)
    return found


def sentences(rng: np.random.Generator) -> str:
    """Sentences of 3 to 12 tokens out of 20, each with one of four tags."""
    lengths = rng.integers(3, 13, 120)
    return "".join("".join(f"w{token}\tT{token % 4}\n" for token in rng.integers(0, 20, n)) + "\n" for n in lengths)


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
def test_one_device_meshes_and_two_processes_agree(rng: np.random.Generator, tmp_path: pathlib.Path) -> None:
    (tmp_path / "tags.tsv").write_text(sentences(rng))
    both = settings(tmp_path / "pair", "data=4") + settings(tmp_path / "split", "data=2,model=2", ("lenet5", "gan_mlp"))
    started = [
        *start(settings(tmp_path / "one", "data=1"), devices=1),
        *start(settings(tmp_path / "mesh", "data=2,model=2", [name for name in RUNS if name != "resnet20_cifar"]), devices=4),
        *start(both, devices=2, count=2),
    ]
    for process in started:
        output, _ = process.communicate(timeout=800)
        assert process.returncode == 0, output
        assert "Gloo" not in output
    for other in ("mesh", "pair", "split"):
        for folder in filter(pathlib.Path.is_dir, (tmp_path / other).iterdir()):
            expected, losses = (
                [row["loss"] for row in rows(run) if row["split"] == "train"]
                for run in (tmp_path / "one" / folder.name, folder)
            )
            assert len(expected) == RUNS[folder.name]["steps"]
            # Sums over a batch in another order: some last bits of float32 in each of 50 steps.
            assert losses == pytest.approx(expected, rel=1e-5), folder
    ended = json.loads((tmp_path / "pair" / "gan_mlp" / "summary.json").read_text())
    alone = json.loads((tmp_path / "one" / "gan_mlp" / "summary.json").read_text())
    assert ended["eval_frechet_distance"] == pytest.approx(alone["eval_frechet_distance"], rel=1e-3)
    assert (tmp_path / "pair" / "gan_mlp" / "samples.png").exists()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_batch_norm_in_float64(tmp_path: pathlib.Path) -> None:
    """In float32 the losses of ResNet-20 part from the fourth step on; in float64 they do not, so it is rounding that grew."""
    run = SGD | RARELY | RUNS["resnet20_cifar"] | {"model": "resnet20_cifar", "steps": 6, "float64": True}
    layouts = {"one": ("data=1", 1, 1), "mesh": ("data=2,model=2", 4, 1)}
    started = []
    for name, (layout, devices, count) in layouts.items():
        runs = [run | {"mesh": layout, "workdir": str(tmp_path / name)}]
        started += start(runs, devices=devices, count=count)
    for process in started:
        output, _ = process.communicate(timeout=800)
        assert process.returncode == 0, output
    losses = {name: [row["loss"] for row in rows(tmp_path / name) if row["split"] == "train"] for name in layouts}
    assert len(losses["one"]) == 6
    # They are written as float32: the last bit may round either way.
    assert losses["mesh"] == pytest.approx(losses["one"], rel=1e-6)


def test_a_batch_that_does_not_divide_is_refused(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-m", "experiments.train", "lenet5", "--batch-size", "64", "--mesh", "data=3"]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "3"}
    done = subprocess.run(
        [*command, "--workdir", str(tmp_path)], cwd=ROOT, env=environment, text=True, capture_output=True, timeout=100
    )
    assert "batch_size: 64 given, a multiple of the 3 data devices is needed" in done.stderr


@pytest.mark.parametrize(
    ("owners", "expected"),
    [
        ([[0, 1], [2, 3]], [(0, 2), (0, 2), (1, 2), (1, 2)]),  # two that share a part of the batch
        ([[0, 0], [0, 0], [1, 1], [1, 1]], [(0, 2), (1, 2)]),
        ([[0, 1]], [(0, 1), (0, 1)]),
    ],
)
def test_the_part_of_each_process(owners: list, expected: list, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = np.array([[types.SimpleNamespace(process_index=owner) for owner in row] for row in owners])
    for index, part in enumerate(expected):
        monkeypatch.setattr("jax.process_index", lambda index=index: index)
        assert mesh.part(types.SimpleNamespace(devices=devices)) == part  # type: ignore[arg-type]


def test_other_devices_are_said() -> None:
    pair, one = {"data": 2, "model": 1, "processes": 2}, {"data": 4, "model": 1, "processes": 1}
    assert mesh.compare(None, one) == mesh.compare(one, one) == ""
    line = mesh.compare(pair, one)
    assert line.startswith("on data=4, model=1 in 1 process, data=2, model=1 in 2 processes before")
