"""Names, what is known of them, and the command line that shows it."""

from __future__ import annotations

import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from zoo import registry
from zoo.__main__ import main


def test_patterns_and_order() -> None:
    assert zoo.list_models() == sorted(zoo.list_models())
    assert zoo.list_models("lenet5*") == ["lenet5", "lenet5_original"]
    assert zoo.model_info("lenet5").family == "lenet"


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match="no model 'lenet-5'; did you mean lenet5"):
        zoo.create_model("lenet-5")


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="num_classes: -1 given"):
        zoo.create_model("lenet5", num_classes=-1)
    with pytest.raises(TypeError, match=r"lenet5: .*dropuot"):
        zoo.create_model("lenet5", dropuot=0.1)


def test_same_seed_same_parameters() -> None:
    one, two, other = (zoo.functional(zoo.create_model("lenet5", rngs=seed))[0] for seed in (5, 5, 6))
    same = jax.tree.map(lambda a, b: bool((a == b).all()), one, two)
    assert all(jax.tree.leaves(same))
    assert not bool((one["conv1"]["kernel"] == other["conv1"]["kernel"]).all())


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "lenet*"]) == 0
    listed = capsys.readouterr().out
    assert "lenet5_original" in listed
    assert "61,706" in listed
    assert main(["info", "lenet5"]) == 0
    shown = capsys.readouterr().out
    assert "416,520" in shown
    assert "conv2" in shown
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert max(map(len, (listed + shown).splitlines())) <= 80
    for cited in ("LeCun et al. 1998", "Elman 1990", "Cho et al. 2014", "Krizhevsky 2014"):
        assert cited in listed
    assert main(["info", "lenet"]) == 2
    assert "did you mean lenet5" in capsys.readouterr().err


def test_functional_is_pure_and_checks_structure() -> None:
    model = zoo.create_model("lenet5")
    params, state, apply = zoo.functional(model)
    x = jax.random.normal(jax.random.key(0), (4, 32, 32, 1))
    logits, new_state = jax.jit(apply)(params, state, x)
    # Compiled and not, the same sums in another order.
    assert jnp.allclose(logits, model(x), atol=1e-5)
    assert jax.tree.structure(new_state) == jax.tree.structure(state)
    zeros = jax.tree.map(jnp.zeros_like, params)
    assert not apply(zeros, state, x)[0].any()
    assert model(x).any()
    with pytest.raises(ValueError, match="params: its structure"):
        apply({"conv1": params["conv1"]}, state, x)


def test_names_of_other_libraries_are_told_ours() -> None:
    for given, ours in {"in_chans": "in_channels", "pretrained": "weights", "drop_path_rate": "stochastic_depth"}.items():
        with pytest.raises(TypeError, match=rf"resnet18: .*'{given}'; here it is {ours}"):
            zoo.create_model("resnet18", **{given: 1})
    with pytest.raises(TypeError, match=r"img_size.*takes images of any size"):
        zoo.create_model("vgg11", img_size=100)
    with pytest.raises(TypeError, match=r"'hiden_size'; did you mean hidden_size\?"):
        zoo.create_model("lstm_classifier", hiden_size=3)
    with pytest.raises(TypeError, match=r"'latent'; did you mean latent_size\?"):  # which the builder takes, not the class
        zoo.create_model("gan_mlp", latent=3)


def test_seeds_in_every_form() -> None:
    made = [
        zoo.functional(zoo.create_model("lenet5", num_classes=classes, rngs=rngs))[0]["fc3"]["kernel"]
        for rngs, classes in ((3, 7), (np.int64(3), np.int32(7)), (nnx.Rngs(3), 7), (jax.random.key(3), np.uint8(7)))
    ]
    for other in made[1:]:
        np.testing.assert_array_equal(made[0], other)
    for bad in ("3", 3.0, None, jnp.zeros(3)):
        with pytest.raises(TypeError, match=r"rngs: .* given, nnx.Rngs, a seed or a jax.random.key is needed"):
            zoo.create_model("lenet5", rngs=bad)
    for wrong in (-1, 2.0, True, "10", [10]):
        with pytest.raises(ValueError, match=r"num_classes: .* given, a whole number of at least 0 is needed"):
            zoo.create_model("lenet5", num_classes=wrong)
    model = zoo.create_model("lenet5")
    model.reset_classifier(np.int64(4), rngs=0)
    assert model.fc3.out_features == 4
    with pytest.raises(ValueError, match="num_classes: -2 given"):
        model.reset_classifier(-2, rngs=0)
    model.reset_classifier(0)
    assert model.fc3 is None


def test_type_checkers_know_the_class_of_every_name() -> None:
    """`make lint` runs two of them over experiments/examples/typed.py; here, that what they are told is true."""
    told = {}
    for overload in typing.get_overloads(registry.create_model):
        parameter, result = overload.__annotations__["name"], overload.__annotations__["return"]
        names = eval(parameter, vars(registry))
        if names is not str:
            told |= dict.fromkeys(typing.get_args(names), result)
    assert told == {name: registry._entry(name)[1].__annotations__["return"] for name in zoo.list_models()}
