"""The trainer in one process: it learns, what it writes, what each option does."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

from experiments import data
from experiments.data.base import ShuffledBatches, evaluation_batches, reader
from experiments.errors import UserError
from experiments.recipes import find
from experiments.recipes.recipe import Recipe
from experiments.training import optimizers
from experiments.training.checkpoints import Checkpoints
from experiments.training.classification import ClassificationTask
from experiments.training.loop import train
from experiments.training.restore import load_run

SMALL = Recipe(model="lenet5", data="digits", batch_size=64, steps=12, evaluate_every=0.25, checkpoint_every=0.25)


def quiet() -> Console:
    return Console(file=io.StringIO(), width=120)


def run(tmp_path: pathlib.Path, **changes) -> dict:
    return train(dataclasses.replace(SMALL, workdir=str(tmp_path), **changes), quiet())


@pytest.mark.parametrize("model", ["lenet5", "lenet5_original"])
def test_it_learns(model: str, tmp_path: pathlib.Path) -> None:
    recipe = dataclasses.replace(find(model), epochs=5, workdir=str(tmp_path), evaluate_every=5)
    summary = train(recipe, quiet())
    # Five of the recipe's epochs: lenet5 reaches 96 to 98 %, the original 93 to 96 %; an untrained network 10 %.
    assert summary["eval_accuracy"] > 0.9


def test_what_a_run_leaves(tmp_path: pathlib.Path) -> None:
    summary = run(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        "config.json", "metrics.jsonl", "summary.json", "curves.png", "model.safetensors", "README.md", "tensorboard",
        "checkpoints",
    }  # fmt: skip
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert summary["steps"] == 12
    assert summary["parameters"] == 61_706
    assert json.loads((tmp_path / "config.json").read_text())["recipe"]["batch_size"] == 64
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["split"] == "train"] == list(range(1, 13))
    figures = {"loss", "accuracy", "gradient_norm", "examples_per_second", "learning_rate", "input_wait"}
    assert {"step", "split"} | figures == set(rows[0]), "on a CPU neither memory nor share of a peak"
    assert [row["step"] for row in rows if row["split"] == "test"] == [6, 12]  # a quarter of 22 steps is 5.5
    assert rows[-1]["accuracy"] == summary["eval_accuracy"]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_newest_two_and_best_checkpoints_stay(tmp_path: pathlib.Path) -> None:
    run(tmp_path, steps=30)
    kept = sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit())
    assert kept[-2:] == [24, 30]
    assert len(kept) <= 3


def test_a_finished_run_is_not_run_again_and_another_is_refused(tmp_path: pathlib.Path) -> None:
    first = run(tmp_path)
    written = (tmp_path / "metrics.jsonl").stat().st_mtime_ns
    assert run(tmp_path) == first
    assert (tmp_path / "metrics.jsonl").stat().st_mtime_ns == written
    with pytest.raises(UserError, match=r"holds another run \(batch_size 64 there, 32 now\)"):
        run(tmp_path, batch_size=32)
    with pytest.raises(UserError, match="model 'lenet5' there"):
        run(tmp_path, model="lenet5_original")
    assert run(tmp_path, batch_size=32, resume=False)["steps"] == 12


def test_checkpoints_of_another_model_are_said_to_be_of_another_run(tmp_path: pathlib.Path) -> None:
    state = lambda size: {"params": {"kernel": jnp.ones((size, 2))}}
    shardings = [jax.sharding.SingleDeviceSharding(jax.devices()[0])]
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(3, state(4), {"step": 3}, loss=1.0, wait=True)
        message = r"step 3 is of another run \(params/kernel is \(4, 2\) there and \(5, 2\) in this model\)"
        with pytest.raises(UserError, match=message):
            checkpoints.restore(state(5), shardings, discard=False)
        found = checkpoints.restore(state(4), shardings, discard=False)
    assert found is not None
    assert found[1] == {"step": 3}


def test_evaluation_covers_every_test_example_once(tmp_path: pathlib.Path) -> None:
    summary = run(tmp_path, batch_size=100)  # 364 test examples: the last batch is short
    opened = load_run(tmp_path)
    images, labels = opened.dataset.test.arrays["image"], opened.dataset.test.arrays["label"]
    logits = opened.task.model(opened.stepper.state)(images)
    assert np.mean(logits.argmax(-1) == labels) == pytest.approx(summary["eval_accuracy"], abs=1e-6)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    # The same float32 sums in another order.
    assert summary["eval_loss"] == pytest.approx(float(loss), rel=1e-5)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = data.load("digits")
    spoiled = ShuffledBatches(dataset.train, SMALL.batch_size, SMALL.seed)[9]["image"][5]
    images = dataset.train.arrays["image"]
    images[(images == spoiled).all((1, 2, 3))] = np.nan  # one example, first met in batch number 9, the tenth
    monkeypatch.setattr(data, "load", lambda *_, **__: dataset)
    with pytest.raises(UserError, match=r"not finite at step 10 \(loss nan, learning rate .*\); the last good .* of step 6"):
        run(tmp_path)
    # What was saved before is sound.
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(load_run(tmp_path).stepper.state.params))


def test_the_moving_average_is_what_is_evaluated(tmp_path: pathlib.Path) -> None:
    run(tmp_path, ema=0.9)
    opened = load_run(tmp_path)
    state = opened.stepper.state
    shown = opened.task.model(state).conv1.kernel[...]
    assert (shown == state.ema["conv1"]["kernel"][...]).all()
    assert not (shown == state.params["conv1"]["kernel"][...]).all()


def test_bfloat16_computes_and_float32_keeps(tmp_path: pathlib.Path) -> None:
    run(tmp_path, precision="bfloat16", steps=3)
    opened = load_run(tmp_path)
    assert opened.task.model(opened.stepper.state)(jnp.ones((1, 32, 32, 1))).dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(opened.stepper.state.params)} == {jnp.dtype("float32")}


def test_accumulation_equals_the_larger_batch() -> None:
    """Two batches of 32 and one of the same 64: one update each, the same up to rounding."""
    dataset = data.load("digits", shift=0)
    images, labels = (dataset.train.arrays[name][:64] for name in ("image", "label"))
    results = []
    for accumulate, parts in ((1, 1), (2, 2)):
        recipe = Recipe(model="lenet5", data="digits", optimizer="sgd", learning_rate=0.1, accumulate=accumulate)
        task = ClassificationTask(recipe, dataset, 10, 10)
        state = task.init()
        for x, y in zip(np.split(images, parts), np.split(labels, parts), strict=True):
            state, _ = jax.jit(task.train_step)(state, {"image": x, "label": y})
        results.append(state.params)
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        # Averages of float32 gradients taken in another order.
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lamb", "rmsprop"])
def test_weight_decay_leaves_out_biases_and_norms(name: str) -> None:
    recipe = Recipe(model="lenet5", data="digits", optimizer=name, weight_decay=0.5, learning_rate=0.1, schedule="constant")
    optimizer = optimizers.make_optimizer(recipe, optimizers.make_schedule(recipe, 10, 10))
    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2), "scale": jnp.ones(2)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    assert (updates["kernel"] < 0).all()
    assert not updates["bias"].any()
    assert not updates["scale"].any()


def test_schedules() -> None:
    at = lambda name, step, **more: float(
        optimizers.make_schedule(Recipe(model="m", data="d", schedule=name, learning_rate=1.0, **more), 90, 10)(step)
    )
    assert at("constant", 89) == 1
    assert at("cosine", 0) == 1
    assert at("cosine", 45) == pytest.approx(0.5)
    assert [at("step", s) for s in (0, 31, 61, 81)] == pytest.approx([1, 0.1, 0.01, 0.001])
    assert at("cosine", 0, warmup_epochs=2) == pytest.approx(1 / 20)
    assert at("cosine", 20, warmup_epochs=2) == pytest.approx(1)
    assert at("one_cycle", 27) == pytest.approx(1)
    assert at("one_cycle", 0) < 0.1 > at("one_cycle", 89)


def test_clipping_bounds_the_update() -> None:
    recipe = Recipe(model="m", data="d", optimizer="sgd", momentum=0, clip_norm=1.0, learning_rate=1.0, schedule="constant")
    optimizer = optimizers.make_optimizer(recipe, optimizers.make_schedule(recipe, 10, 10))
    gradient = {"w": jnp.full((4, 4), 100.0)}
    updates, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
    assert float(optax.tree.norm(updates)) == pytest.approx(1, rel=1e-5)


def test_batches_are_a_function_of_their_number() -> None:
    source = data.load("digits").train
    one, two = ShuffledBatches(source, 100, seed=4), ShuffledBatches(source, 100, seed=4)
    two[30], two[3]
    np.testing.assert_array_equal(one[17]["image"], two[17]["image"])
    labels = np.concatenate([one[step]["label"] for step in range(one.per_epoch)])
    images = np.concatenate([one[step]["image"] for step in range(one.per_epoch)]).reshape(len(labels), -1)
    # No example twice in an epoch; 33 examples of 1,433 are left over by 14 batches of 100.
    expected = {image.tobytes() for image in source.arrays["image"].reshape(len(source), -1)}
    assert len({image.tobytes() for image in images}) == len({i.tobytes() for i in images} & expected)
    assert not np.array_equal(one[0]["label"], one[one.per_epoch]["label"])


def test_a_feed_goes_on_from_any_position() -> None:
    batches = ShuffledBatches(data.load("digits").train, 100, seed=4)
    for stop in (0, 1, 15, 16, 17, 40):  # before, inside and at the ends of the groups that are read at a time
        feed = reader(batches, 41)
        for _ in range(stop):
            next(feed)
        state = json.loads(json.dumps(feed.get_state()))
        other = reader(batches, 41)
        other.set_state(state)
        for number in range(stop, 41):
            expected = batches[number]["label"]
            np.testing.assert_array_equal(next(other)["label"], expected)
            np.testing.assert_array_equal(next(feed)["label"], expected)
        assert next(other, None) is None


def test_the_test_fifth_is_fixed_stratified_and_apart() -> None:
    dataset = data.load("digits")
    train_images, test_images = (part.arrays["image"] for part in (dataset.train, dataset.test))
    assert len(train_images) + len(test_images) == 1797
    counts = np.bincount(dataset.test.arrays["label"])
    assert counts.min() >= 35
    assert counts.max() <= 37
    assert not {i.tobytes() for i in train_images} & {i.tobytes() for i in test_images}
    assert train_images.min() == -1
    assert train_images.max() == 1
    weights = [batch["weight"].sum() for batch in evaluation_batches(dataset.test, 100)]
    assert weights == [100, 100, 100, len(test_images) - 300]
