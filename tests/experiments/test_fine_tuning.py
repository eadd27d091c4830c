"""Training from weights: which recipe, which images, what is trained and how fast, what a run needs later."""

from __future__ import annotations

import dataclasses
import io
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from PIL import Image
from rich.console import Console

import zoo
from experiments import recipes
from experiments.errors import UserError
from experiments.recipes.recipe import Recipe
from experiments.train import parse
from experiments.training import loop, recipe_data, stage_rates
from experiments.training.restore import load_run
from zoo.preprocessing import Preprocessing

LOOK = Preprocessing((40, 36), (32, 32), "bicubic", (0.25,), (0.5,))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A LeNet-5 with seven classes of grey images, whose preprocessing is said."""
    folder = tmp_path_factory.mktemp("weights")
    model = zoo.create_model("lenet5", num_classes=7, rngs=5)
    zoo.save_model(model, folder, classes=[f"old {n}" for n in range(7)], preprocessing=LOOK)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Two classes, of which 30 images each are trained with."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(3)
    for part, count in (("train", 30), ("val", 4)):
        for label, name in enumerate(("dark", "light")):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                values = rng.integers(0, 120, (37, 45, 3)) + 120 * label
                Image.fromarray(values.astype(np.uint8)).save(root / part / name / f"{number}.png")
    return root


def train(recipe: Recipe, **options: Any) -> tuple[dict[str, Any], str]:
    shown = io.StringIO()
    return loop.train(recipe, Console(file=shown, width=300), **options), shown.getvalue()


def test_which_recipe() -> None:
    chosen = recipes.find("resnet18", "imagefolder:pets", "torchvision://resnet18")
    assert (chosen.optimizer, chosen.learning_rate, chosen.warmup_epochs) == ("adamw", 3e-4, 1)
    assert (chosen.weights, chosen.data, chosen.precision) == ("torchvision://resnet18", "imagefolder:pets", "float32")
    own = recipes.find("resnet18", "imagefolder:pets")
    assert (own.optimizer, own.learning_rate) == ("adamw", 1e-3)  # CIFAR's, SGD at 0.1, diverges on other images
    assert recipes.find("resnet18").data == "cifar10"
    assert recipes.find("resnet50", "imagefolder:x").learning_rate == 0.1  # which has a recipe for it
    assert recipes.find("bilstm_tagger", None, "runs/x").task == "tagging"
    recipe, named = parse(["lenet5", "--weights", "runs/x", "--layer-decay", "0.5", "--batch-size", "8"])
    assert (recipe.layer_decay, recipe.batch_size, recipe.weights, named) == (0.5, 8, "runs/x", True)
    assert parse(["lenet5"])[1] is False


@pytest.mark.parametrize(("model", "size"), [("resnet20_cifar", 32), ("resnet18", 224), ("lenet5", 32)])
def test_images_are_as_large_as_the_model_reads(model: str, size: int, images: pathlib.Path) -> None:
    recipe = recipes.find(model, f"imagefolder:{images}")
    assert recipe_data.load(dataclasses.replace(recipe, data=f"imagefolder:{images}")).input_shape == (size, size, 3)


def test_images_are_made_ready_as_the_weights_want_them(weights: pathlib.Path, images: pathlib.Path) -> None:
    """What the network is tested on is what `zoo.preprocess` gives the finished model."""
    recipe = recipes.find("lenet5", f"imagefolder:{images}", str(weights))
    dataset = recipe_data.load(recipe)
    assert dataset.preprocessing == dataclasses.replace(LOOK, mean=(0.25,) * 3, std=(0.5,) * 3)
    batch = dataset.test.gather(np.arange(3), None)
    ours = dataset.preprocess(batch, jax.random.key(0), False)["image"]
    model = zoo.create_model("lenet5", num_classes=2, in_channels=3)
    theirs = zoo.preprocess(model, dataset.test.files[:3], preprocessing=dataset.preprocessing)
    # One resizes to whole pixels and cuts out, the other resizes the part that is cut out: noise of 120 values, resampled.
    assert np.abs(np.asarray(ours) - np.asarray(theirs)).mean() < 0.02
    smaller = recipe_data.load(dataclasses.replace(recipe, data_options="size=16"))
    assert smaller.preprocessing == dataclasses.replace(
        LOOK, resize_size=(20, 18), crop_size=(16, 16), mean=(0.25,) * 3, std=(0.5,) * 3
    )


def test_a_run_from_weights(weights: pathlib.Path, images: pathlib.Path, tmp_path: pathlib.Path) -> None:
    source = tmp_path / "weights.safetensors"
    source.write_bytes((weights / "model.safetensors").read_bytes())
    recipe = dataclasses.replace(
        recipes.find("lenet5", f"imagefolder:{images}", str(source)),
        epochs=2, freeze_until="fc2", layer_decay=0.5, weight_decay=0.5, ema=0.9, workdir=str(tmp_path / "run"),
    )  # fmt: skip
    summary, printed = train(recipe, fit_batch=True)
    assert "batch size 8, not 32: imagefolder has 60 training examples" in printed
    assert f"starting from {source}; drawn anew: fc3.weight, fc3.bias; fitted to other channels: conv1.weight" in printed
    before = zoo.load_model(weights)
    params = zoo.count_params(zoo.create_model("lenet5", num_classes=2, in_channels=3))
    trained = 120 * 84 + 84 + 84 * 2 + 2
    assert f"{trained:,} of {params:,} parameters are trained, the first of them at 0.5 of the learning rate" in printed
    assert summary["steps"] == 2 * (60 // 8)
    after: Any = zoo.load_model(tmp_path / "run")
    np.testing.assert_array_equal(after.conv2.kernel[...], before.conv2.kernel[...])  # bit for bit, averaged weights too
    np.testing.assert_array_equal(after.fc1.kernel[...], before.fc1.kernel[...])
    assert np.abs(after.fc2.kernel[...] - before.fc2.kernel[...]).max() > 0
    assert zoo.weights_info(after).classes == ("dark", "light")
    assert zoo.weights_info(after).preprocessing == recipe_data.load(recipe).preprocessing

    # What it began from is needed neither to look at it nor to go on.
    source.unlink()
    assert load_run(tmp_path / "run").dataset.preprocessing == zoo.weights_info(after).preprocessing
    longer, printed = train(dataclasses.replace(recipe, epochs=3), fit_batch=True)
    assert "continuing at step 14 of 21" in printed
    assert longer["steps"] == 21
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["recipe"]["batch_size"] == 32  # as asked for; what it comes to depends on the data
    with pytest.raises(UserError, match=r"weights: No such file or directory: .*weights.safetensors"):
        train(dataclasses.replace(recipe, workdir=str(tmp_path / "other")), fit_batch=True)
    assert not (tmp_path / "other" / "config.json").exists()


def test_stages_before_the_first_that_is_trained_do_not_change(rng: np.random.Generator) -> None:
    """With statistics, dropout and weight decay; and those after it step at their own rate, as plain gradients say."""
    build = lambda: zoo.ResNet(
        zoo.models.resnet.BasicBlock,
        (1, 1, 1),
        widths=(4, 6, 8),
        cifar=True,
        num_classes=3,
        stochastic_depth=0.3,
        rngs=nnx.Rngs(1),
    )
    rates = stage_rates.rates(nnx.eval_shape(build), "layer2", 0.25)
    _, params, rest = zoo.split(zoo.training_view(build()))
    graph = zoo.split(stage_rates.frozen(zoo.training_view(build()), "layer2"))[0]
    by_stage = {"stem": 0, "layer1": 0, "layer2": 0.25**2, "layer3": 0.25, "fc": 1, "conv1": 0, "bn1": 0}
    paths = [path for path, _ in nnx.to_flat_state(params)]
    assert jax.tree.leaves(rates) == [by_stage[path[0]] for path in paths]
    images, labels = jnp.asarray(rng.normal(size=(4, 12, 12, 3)), jnp.float32), jnp.asarray([0, 1, 2, 1])

    def loss(params: Any, limited: bool) -> Any:
        model = nnx.merge(graph, stage_rates.stopped(params, rates) if limited else params, rest, copy=True)
        value = optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()
        return value, zoo.split(model)[2]

    (_, new_rest), gradient = jax.jit(jax.value_and_grad(lambda p: loss(p, True), has_aux=True))(params)
    whole, _ = jax.jit(jax.grad(lambda p: loss(p, False), has_aux=True))(params)
    recipe = Recipe("lenet5", "digits", optimizer="sgd", momentum=0.0, learning_rate=0.5, schedule="constant", weight_decay=0.1)
    from experiments.training.optimizers import make_optimizer

    optimizer = make_optimizer(recipe, optax.constant_schedule(0.5), rates)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    changed = stage_rates.kept(params, optax.apply_updates(params, updates), rates)

    def compare(old: Any, new: Any, gradient: Any, rate: float) -> None:
        decay = 0.1 * old if old.ndim > 1 else 0
        np.testing.assert_allclose(new, old - rate * 0.5 * (gradient + decay), rtol=0, atol=2e-6)  # float32, fused otherwise
        if not rate:
            np.testing.assert_array_equal(new, old)

    jax.tree.map(compare, params, changed, whole, rates)
    old, new = (dict(nnx.to_flat_state(part)) for part in (rest, new_rest))
    for path, value in new.items():
        if path[-1] in ("mean", "var"):
            moved = bool(np.any(value[...] != old[path][...]))
            assert moved == (path[0] in ("layer2", "layer3")), path


def test_stages_of_a_language_model() -> None:
    """Whose parameters stand beside a state that is carried on from batch to batch."""
    from experiments.training.sequence_tasks import Carrying

    build = lambda: Carrying(zoo.create_model("gru_lm", hidden_size=8, embedding_size=4), 2)  # type: ignore[arg-type]
    model = nnx.eval_shape(build)
    rates = stage_rates.rates(model, "recurrent", 0.5)
    paths = [path for path, _ in nnx.to_flat_state(zoo.split(zoo.training_view(model))[1])]
    expected = {"embedding": 0, "recurrent": 0.5, "head": 1}
    assert jax.tree.leaves(rates) == [expected[path[1]] for path in paths]


def test_the_optimizer_keeps_nothing_for_what_is_frozen() -> None:
    from experiments.training.optimizers import make_optimizer

    params = {"a": jnp.ones((3, 3)), "b": jnp.ones((5, 5))}
    optimizer = make_optimizer(Recipe("lenet5", "digits"), optax.constant_schedule(0.1), {"a": 0.0, "b": 1.0})
    assert sum(leaf.size for leaf in jax.tree.leaves(optimizer.init(params)) if leaf.ndim) == 2 * 25


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"freeze_until": "layer9"},
            "freeze_until: 'layer9' is not known; .*the stages are conv1, conv2, fc1, fc2, classifier",
        ),
        ({"freeze_until": "conv1"}, "freeze_until: conv1 given, which is the first stage"),
        ({"layer_decay": 0.0}, "layer_decay: 0.0 given, above 0 and at most 1 is needed"),
        ({"layer_decay": 1.5}, "layer_decay: 1.5 given"),
        ({"weights": "no/such.safetensors"}, "weights: .*such"),
        ({"task": "gan", "model": "gan_mlp", "layer_decay": 0.5}, "layer_decay: 0.5 given, a GAN takes none"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=message):
        train(dataclasses.replace(Recipe("lenet5", "digits", workdir=str(tmp_path / "run")), **changes))
    assert not (tmp_path / "run" / "config.json").exists()


def test_weights_of_another_model_are_refused_before_anything_is_moved(weights: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match="weights: not the weights of this ResNet"):
        train(Recipe("resnet20_cifar", "digits", weights=str(weights), workdir=str(tmp_path / "run")))
    assert list((tmp_path / "run").iterdir()) == []
