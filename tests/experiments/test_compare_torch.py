"""Peers agree with the zoo, on one small case of each kind: what the clock would otherwise never see."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.comparison import cases, contenders, programs
from experiments.comparison.models import BLOCK, ModelCase
from experiments.comparison.recurrent_cases import recurrent_case
from experiments.comparison.timing import relative_error
from experiments.comparison.torch_models import torch_contender

# float32 sums in another order, through a few layers and their gradients.
TOLERANCE = 2e-5
OPERATORS = [
    cases.pool_case("", 2, 9, 3, 3, 2, 1),
    cases.norm_case("", 2, 5, 3, residual=True),
    cases.response_case("", 2, 5, 7),
    cases.conv_case("", 2, 5, 3, 4),
    cases.linear_case("", 5, 7, 3, "relu", backward=True),
    cases.mlp_case("", 5, (7, 8, 3), "leaky_relu", None),
    cases.lenet5_case(2),
    cases.loss_case("", 5, 7),
    recurrent_case("rnn", 2, 5, 3, 4, backward=True),
    recurrent_case("gru", 2, 5, 3, 4, backward=True),
    recurrent_case("lstm", 2, 5, 3, 4, layers=2, bidirectional=True, backward=True),
]
MODELS = [
    ModelCase("lenet5", (4, 32, 32, 1), True),
    ModelCase(BLOCK, (2, 8, 8, 3), True),
    ModelCase(BLOCK, (2, 8, 8, 3), False),
    ModelCase("resnet18", (2, 32, 32, 3), False),
    ModelCase("gru_lm", (2, 6), True),
    ModelCase("bilstm_tagger", (2, 6), False),
    ModelCase("rnn_classifier", (2, 6, 32), False),
]


def error(contender: contenders.Contender, inputs: list[np.ndarray], reference: list[np.ndarray]) -> float:
    return relative_error(contender.to_numpy(contender.call(*contender.prepare(inputs))), reference)


@pytest.mark.parametrize("case", OPERATORS, ids=lambda case: case.name)
def test_peers_of_an_operator_agree(case: cases.Case) -> None:
    inputs, reference = case.draw(np.random.default_rng(0)), contenders.operator_reference(case)
    peers = contenders.operator_contenders(case, "float32", ["torch", "flax"])
    assert "torch" in peers
    for name in set(peers) & {"torch", "flax"}:
        assert error(peers[name](), inputs, reference) < TOLERANCE, name


@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
def test_a_models_twin_agrees(case: ModelCase) -> None:
    weights = programs.Weights(case)
    inputs, reference = case.draw(np.random.default_rng(0)), programs.model_reference(weights)
    contender = torch_contender(weights, "float32", compiled=False)
    assert error(contender, inputs, reference) < TOLERANCE
    assert error(programs.jax_contender(weights, jnp.float32, "xla"), inputs, reference) < TOLERANCE
