"""GAN training: losses, what a run leaves, quality figures against scipy, resume, generation."""

from __future__ import annotations

import dataclasses
import io
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from PIL import Image
from rich.console import Console

import experiments.train
import zoo
from experiments import data, generate
from experiments.data.base import ArraySource
from experiments.errors import UserError, run
from experiments.generation import images as generation_images
from experiments.recipes import find
from experiments.recipes.recipe import Recipe
from experiments.training import run_files, samples
from experiments.training.gan_task import LOSSES, GanTask
from experiments.training.judge import judge_of
from experiments.training.loop import train
from experiments.training.quality import frechet_distance, precision_recall
from experiments.training.restore import load_run

pytestmark = pytest.mark.slow


def recipe(model: str = "gan_mlp", **changes) -> Recipe:
    small = {"steps": 12, "evaluate_every": 0.5, "checkpoint_every": 0.5, "steps_per_call": 1, "task_options": ""}
    if model == "dcgan":
        small["model_options"] = "image_size=32,generator_width=8,discriminator_width=8"
    return dataclasses.replace(find(model), **(small | changes))


def task(model: str = "gan_mlp", **changes) -> GanTask:
    chosen = recipe(model, **changes)
    return GanTask(chosen, data.load("digits", **chosen.options("data")), 12, 22)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A short run, and the judge beside it."""
    workdir = tmp_path_factory.mktemp("gan") / "run"
    train(recipe(workdir=str(workdir), ema=0.9), Console(file=io.StringIO()), judge_of)
    return workdir


def test_frechet_distance_equals_scipys(rng: np.random.Generator) -> None:
    for size, count in ((1, 10), (5, 40), (20, 15)):  # the last: singular covariances
        a, b = (
            rng.standard_normal((count, size)),
            0.5 + rng.standard_normal((count + 3, size)) @ rng.standard_normal((size, size)),
        )
        cov_a, cov_b = np.atleast_2d(np.cov(a, rowvar=False)), np.atleast_2d(np.cov(b, rowvar=False))
        root = scipy.linalg.sqrtm(cov_a @ cov_b).real
        expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a + cov_b - 2 * root)
        # A root of a singular product is exact to about the root of float64's rounding.
        assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6 if count > size else 1e-4)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="b: shape"):
        frechet_distance(a, a[:1])


def test_precision_and_recall_of_clear_cases(rng: np.random.Generator) -> None:
    real = rng.standard_normal((200, 4))
    assert precision_recall(real, real) == (1, 1)
    assert precision_recall(real, real + 100) == (0, 0)
    narrow = real[:1] + 1e-3 * rng.standard_normal((200, 4))  # one mode, seen precisely
    precision, recall = precision_recall(real, narrow)
    assert precision == 1
    assert recall < 0.05


@pytest.mark.parametrize(
    ("model", "loss"), [*(("gan_mlp", loss) for loss in LOSSES), ("dcgan", "non_saturating"), ("dcgan", "wasserstein_gp")]
)
def test_each_loss_trains_both_networks(loss: str, model: str) -> None:
    more = ",discriminator_norm=None" if model == "dcgan" else "spectral_norm=True"
    base = recipe(model).model_options
    built = task(model, task_options=f"loss={loss},conditional=True", model_options=base + more)
    state = built.init()
    batch = built.dataset.training_batches(16, 0)[0]
    after, metrics = jax.jit(built.train_step)(state, *built.prepare(state, [batch]))
    figures = dict(zip(built.metric_names, np.asarray(metrics), strict=True))
    assert figures["finite"] == 1
    for part in ("generator", "discriminator"):
        moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.params[part], after.params[part])
        assert any(jax.tree.leaves(moved)), part


def test_gradient_penalty_equals_a_direct_evaluation() -> None:
    built = task(task_options="loss=wasserstein_gp,penalty=7", optimizer="sgd", learning_rate=1e-9, ema=None)
    state = built.init()
    batch = built.dataset.training_batches(8, 0)[0]
    _, metrics = jax.jit(built.train_step)(state, *built.prepare(state, [batch]))
    keys = jax.random.split(jax.random.fold_in(jax.random.key(built.recipe.seed), 0), 3)
    model, real = built.model(state), batch["image"]
    fake = model.generator(jax.random.normal(keys[1], (8, 100)))
    mix = jax.random.uniform(keys[2], (8, 1, 1, 1))
    between = mix * real + (1 - mix) * fake
    w1, b1 = (np.asarray(p[...], np.float64) for p in (model.discriminator.fc1.kernel, model.discriminator.fc1.bias))
    w2 = np.asarray(model.discriminator.fc2.kernel[...], np.float64)[:, 0]
    hidden = np.asarray(between).reshape(8, -1) @ w1 + b1
    slope = np.where(hidden > 0, w2, 0.2 * w2) @ w1.T  # d score / d image of the two-layer network
    penalty = 7 * np.square(np.linalg.norm(slope, axis=1) - 1).mean()
    expected = float(model.discriminator(fake).mean() - model.discriminator(real).mean()) + penalty
    # float32 in the step, float64 here.
    assert float(metrics[built.metric_names.index("discriminator_loss")]) == pytest.approx(expected, rel=1e-4)


def test_discriminator_steps_between_generator_steps() -> None:
    built = task(task_options="d_steps=3")
    step = jax.jit(built.train_step)
    state, moved = built.init(), []
    for number in range(6):
        after, _ = step(state, *built.prepare(state, [built.dataset.training_batches(16, 0)[number]]))
        changed = jax.tree.map(lambda a, b: bool((a != b).any()), state.params["generator"], after.params["generator"])
        moved.append(any(jax.tree.leaves(changed)))
        state = after
    assert moved == [False, False, True, False, False, True]


@pytest.mark.parametrize("model", ["gan_mlp", "dcgan"])
@pytest.mark.parametrize("options", ["d_steps=2", "d_steps=2,fresh_latents=True,loss=hinge"])
def test_a_step_in_bfloat16_gives_back_a_state_of_the_same_types(options: str, model: str) -> None:
    built = task(model, precision="bfloat16", task_options=options)
    state = jax.eval_shape(built.init)
    batch = built.dataset.training_batches(16, 0)[0]
    after, _ = jax.eval_shape(lambda state: built.train_step(state, *built.prepare(state, [batch])), state)
    types = lambda tree: [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]
    assert types(after) == types(state)


def test_every_loss_is_named_in_help_and_docs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        experiments.train.main(["gan_mlp", "--help"])
    page = (pathlib.Path(__file__).parents[2] / "docs" / "training.md").read_text()
    helped = "".join(char for char in capsys.readouterr().out if char.isalnum() or char in "_=")  # without borders
    for name in (*LOSSES, "d_steps", "fresh_latents", "penalty", "r1", "conditional", "judge"):
        assert name in helped
        assert f"`loss={name}`" in page or f"`{name}=" in page


def test_what_a_run_leaves(finished: pathlib.Path) -> None:
    assert {"samples.png", "samples.gif", "curves.png", "summary.json"} <= {p.name for p in finished.iterdir()}
    with Image.open(finished / "samples.gif") as animation:
        assert animation.n_frames == len(list((finished / "samples").glob("*.png"))) == 2
    assert (finished.parent / "judge-digits" / "summary.json").exists()


def test_the_model_of_a_run_generates(finished: pathlib.Path) -> None:
    model, opened = zoo.load_model(finished), load_run(finished)
    info = zoo.weights_info(model)
    assert (info.model, info.data, info.classes, info.preprocessing) == ("gan_mlp", "digits", (), None)
    assert dict(info.figures)["real frechet distance"] < dict(info.figures)["frechet distance"]
    z = jax.random.normal(jax.random.key(0), (3, 100))
    # The averaged generator; jitted here and not there.
    expected = opened.task.generate(opened.stepper.state, z, None)
    np.testing.assert_allclose(model(z), expected, rtol=1e-4, atol=1e-5)  # type: ignore[operator]


def test_several_steps_per_call_and_a_resumed_run_end_alike(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    judge = f"judge={finished.parent / 'judge-digits'}"
    quiet = Console(file=io.StringIO())
    whole = train(recipe(workdir=str(tmp_path / "whole"), steps_per_call=5, task_options=judge), quiet, judge_of)
    assert whole["steps"] == 12
    assert whole["collapsed"] in (True, False)
    assert {"eval_frechet_distance", "eval_real_frechet_distance", "eval_precision", "eval_missing_classes"} <= set(whole)
    # Half the samples of real data are nearer to the other half than twelve steps of training can come.
    assert whole["eval_real_frechet_distance"] < 30 < whole["eval_frechet_distance"]


def test_a_collapsed_generator_is_named(tmp_path: pathlib.Path, finished: pathlib.Path) -> None:
    built = task(task_options=f"judge={finished.parent / 'judge-digits'}")
    figures = {"missing_classes": 7.0, "recall": 0.0}
    assert built.conclude(tmp_path, figures) == {"collapsed": True}
    assert built.conclude(tmp_path, {"missing_classes": 0.0, "recall": 0.8}) == {"collapsed": False}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_options": "loss=bce"}, "loss: 'bce' given, it is one of non_saturating"),
        ({"task_options": "d_steps=0"}, "d_steps: 0 given"),
        ({"task_options": "fresh_latents=2"}, "fresh_latents: 2 given, True or False"),
        ({"task_options": "steps=3"}, "task_options: steps not known"),
        ({"model": "lenet5"}, "model: lenet5 is no GAN"),
        ({"data_options": "size=32"}, r"data: digits has images \(32, 32, 1\), gan_mlp makes \(28, 28, 1\)"),
    ],
)
def test_bad_options_are_named(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        task(**changes).init()


def test_wasserstein_needs_a_discriminator_without_batch_norm() -> None:
    with pytest.raises(UserError, match="discriminator_norm=None"):
        task("dcgan", task_options="loss=wasserstein_gp").init()


def test_images_outside_the_range_of_tanh_are_refused() -> None:
    chosen = recipe()
    digits = data.load("digits", size=28)
    spoiled = {"image": digits.train.arrays["image"] * 255, "label": digits.train.arrays["label"]}
    with pytest.raises(UserError, match=r"reach from -255 to 255; .* needs -1 to 1"):
        GanTask(chosen, dataclasses.replace(digits, train=ArraySource(spoiled)), 12, 22)


def test_a_column_for_each_class(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Of a network that takes classes; here each image is as bright as its class."""
    made = types.SimpleNamespace(
        task=types.SimpleNamespace(
            conditional=True,
            latent_size=3,
            generate=lambda state, z, labels: np.broadcast_to(np.asarray(labels)[:, None, None, None] / 10, (len(z), 4, 4, 1)),
        ),
        dataset=types.SimpleNamespace(classes=[str(n) for n in range(10)], input_shape=(4, 4, 1)),
        recipe=types.SimpleNamespace(directory=str(tmp_path)),
        stepper=types.SimpleNamespace(state=None),
    )
    count = int(rng.integers(21, 40))
    options = types.SimpleNamespace(num=count, out=None, single=False, latent=None, interpolate=None, label=None, seed=0)
    kept = []
    monkeypatch.setattr(samples, "save_grid", lambda images, path, columns=None: kept.append((images, columns)))
    generation_images.generate(made, options)  # type: ignore[arg-type]
    ((images, columns),) = kept
    assert columns == 10
    sheet = samples.grid(images, columns)
    assert sheet.shape == ((count + 9) // 10 * 6 - 2, 10 * 6 - 2, 1)
    for column in range(10):  # the first two rows are full
        assert len({sheet[row * 6, column * 6, 0] for row in range(2)}) == 1
    assert len({sheet[0, column * 6, 0] for column in range(10)}) == 10


def test_a_column_for_what_the_judge_sees(tmp_path: pathlib.Path, rng: np.random.Generator) -> None:
    """Of a network that knows no classes; here the judge goes by a sample's brightness, and takes none for the last class."""
    built = task()
    seen = rng.integers(0, 9, 400)
    seen[rng.permutation(400)[:390]] = 0  # class 0 fills its column, no other one does
    bright = np.broadcast_to((seen / 10)[:, None, None, None], (400, 8, 8, 1)).astype(np.float32)
    built.generate = lambda state, z, labels: bright[: len(z)]  # type: ignore[method-assign]
    built._judge = lambda: types.SimpleNamespace(forward=lambda images: (None, np.eye(10)[seen[: len(images)]]))  # type: ignore
    path = built.illustrate(None, tmp_path, 7)["samples"]  # type: ignore[arg-type]
    with Image.open(path) as picture:
        sheet = np.asarray(picture.resize((98, 98), Image.Resampling.NEAREST))
    for column in range(10):
        cells = [int(sheet[row * 10 + 4, column * 10 + 4]) for row in range(10)]
        count = min(10, int((seen == column).sum()))
        expected = int(samples.to_bytes(np.float32(column / 10)))
        assert cells == [expected] * count + [255] * (10 - count), column


def test_few_panels_for_the_figures_of_a_gan() -> None:
    names = {"loss", "generator_loss", "discriminator_loss", "score_of_real", "score_of_fake", "frechet_distance", "precision"}
    names |= {"recall", "real_precision", "real_recall", "real_frechet_distance", "label_distance", "missing_classes"}
    panels = run_files.panels_of(names)
    assert list(panels) == ["losses", "frechet distance", "scores", "precision and recall", "classes"]
    assert panels["losses"] == ["generator_loss", "discriminator_loss"]
    assert run_files.panels_of({"loss", "accuracy", "precision"}) == {
        "loss": ["loss"], "accuracy": ["accuracy"], "precision": ["precision"],
    }  # fmt: skip
    assert run_files.panels_of(set()) == {}


def test_generate_grids_single_images_and_interpolations(
    finished: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate.main([str(finished), "--num", "7", "--out", str(tmp_path / "g.png")]) == 0
    assert "7 images in" in capsys.readouterr().out
    with Image.open(tmp_path / "g.png") as picture:
        assert picture.width / picture.height == pytest.approx(1, abs=0.05)  # three columns, three rows
    generate.main([str(finished), "--num", "3", "--single", "--out", str(tmp_path / "many")])
    assert len(list((tmp_path / "many").glob("*.png"))) == 3
    generate.main([str(finished), "--num", "2", "--interpolate", "5", "--out", str(tmp_path / "i.png")])
    np.save(tmp_path / "z.npy", np.zeros((2, 64), np.float32))
    assert run(generate.main, [str(finished), "--latent", str(tmp_path / "z.npy")]) == 2
    assert "this generator needs [num, 100]" in capsys.readouterr().err
    assert run(generate.main, [str(finished), "--label", "3"]) == 2
    assert "trained without classes" in capsys.readouterr().err


def test_interpolation_keeps_its_ends_and_its_length(rng: np.random.Generator) -> None:
    z = rng.standard_normal((4, 100))
    path = samples.interpolate(z, 6).reshape(2, 6, 100)
    np.testing.assert_allclose(path[:, 0], z[0::2], atol=1e-12)
    np.testing.assert_allclose(path[:, -1], z[1::2], atol=1e-12)
    lengths = np.linalg.norm(path, axis=-1)
    assert lengths.min() > 0.9 * np.linalg.norm(z, axis=-1).min()


def test_model_options_reach_the_networks() -> None:
    built = task(model_options="latent_size=16,hidden=32")
    state = built.init()
    assert built.latent_size == 16
    assert isinstance(built.model(state), zoo.Gan)
    assert built.generate(state, *built.latents(3, 0)).shape == (3, 28, 28, 1)
    assert jnp.abs(built.generate(state, *built.latents(3, 0))).max() <= 1
