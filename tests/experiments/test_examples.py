"""The short programs run, and do what they say."""

from __future__ import annotations

import sys

import jax
import numpy as np
import pytest

from experiments.examples import finetune_plain_jax, kernel_alone, linen_features

pytestmark = pytest.mark.slow


def test_finetuning_in_a_plain_loop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["finetune_plain_jax", "--steps", "12"])
    finetune_plain_jax.main()
    words = capsys.readouterr().out.split()
    assert float(words[1]) > float(words[4])


def test_features_in_a_linen_model(capsys: pytest.CaptureFixture[str]) -> None:
    linen_features.main()
    assert capsys.readouterr().out == "logits (2, 2), 1 batch in the statistics, collections params, batch_stats\n"


def test_linen_gradients_reach_the_trunk() -> None:
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 1))
    classifier = linen_features.Classifier()
    variables = classifier.init(jax.random.key(1), images)
    loss = lambda params: (classifier.apply({**variables, "params": params}, images) ** 2).sum()
    gradient = jax.jit(jax.grad(loss))(variables["params"])
    assert np.abs(gradient["Trunk_0"]["trunk"]["conv1"]["kernel"]).max() > 0


def test_one_kernel_alone(capsys: pytest.CaptureFixture[str]) -> None:
    kernel_alone.main()
    shown = capsys.readouterr().out
    assert "value 40.0 (plain XLA: 40.0), gradient at 1 pixel" in shown
    assert "xla: runs here" in shown
