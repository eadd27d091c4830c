"""Names, what is known of them, and the command line that shows it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import zoo
from zoo.__main__ import main


def test_patterns_and_order() -> None:
    assert zoo.list_models() == sorted(zoo.list_models())
    assert zoo.list_models("lenet5*") == ["lenet5", "lenet5_original"]
    assert zoo.model_info("lenet5").family == "lenet"


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match="no model 'lenet-5'; did you mean lenet5"):
        zoo.create_model("lenet-5")


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="num_classes: 0 given"):
        zoo.create_model("lenet5", num_classes=0)
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
