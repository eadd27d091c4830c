"""What is compared: the cases that must be there, and that every peer does the same work as the zoo."""

from __future__ import annotations

import numpy as np
import pytest
from flax import nnx

import kernels
from experiments.comparison import cases, contenders, programs
from experiments.comparison.case import Case
from experiments.comparison.cases import operator_cases
from experiments.comparison.models import BLOCK, ModelCase, model_cases
from experiments.comparison.recurrent_cases import recurrent_case
from experiments.measuring.clock import relative_error

# The public benchmark's networks and inputs, forward.
PUBLIC_MODELS = {
    ("lenet5", (4096, 32, 32, 1)),
    ("alexnet", (1024, 224, 224, 3)),
    ("googlenet", (10, 224, 224, 3)),
    ("resnet101", (10, 224, 224, 3)),
    ("vgg16", (10, 224, 224, 3)),
    ("vgg19", (10, 224, 224, 3)),
    ("resnet18", (2, 224, 224, 3)),
    (BLOCK, (10, 224, 224, 3)),
}
# Cell, input, hidden size, columns of the last layer's input, precision; each forward, and forward and backward.
SIX = [("lstm", (10, 512, 128), 256, 6, 1, "float32"), ("lstm", (10, 512, 128), 256, 6, 2, "float32")]
SHAPES = [(16, 1024, 768, 768), (32, 128, 256, 256), (64, 256, 1024, 1024), (8, 256, 1024, 256)]


def layers_of(case: Case) -> tuple:
    """Cell, shape of the input, hidden size, layers, directions and precision, read off the inputs."""
    x, *arrays = case.inputs
    hidden = arrays[1].shape[0]
    directions = 2 if len(arrays) > 3 and arrays[3].shape == arrays[0].shape and arrays[-3].shape[0] == 2 * hidden else 1
    return case.operator, x.shape, hidden, len(arrays) // 3 // directions, directions, case.precision


def test_the_public_benchmarks_cases_are_there_for_a_gpu() -> None:
    models = model_cases(False, "cuda")
    assert {(c.model, c.shape) for c in models if c.label == "public benchmark" and not c.train} == PUBLIC_MODELS
    found = {(layers_of(c), bool(c.argnums)) for c in operator_cases(False, "cuda") if c.operator in contenders.LOOPS}
    for shape in SIX:
        assert {(shape, False), (shape, True)} <= found
    assert (("rnn", (8, 256, 1024), 256, 1, 1, "float32"), False) in found
    for *size, hidden in SHAPES:
        wanted = ("lstm", tuple(size), hidden, 1, 1, "float16" if hidden == 768 else None)
        assert {(wanted, False), (wanted, True)} <= found


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_cases_have_names_of_their_own_floors_and_reasons(platform: str) -> None:
    for quick in (False, True):
        operators, models = operator_cases(quick, platform), model_cases(quick, platform)
        for names in ([c.name for c in operators], [c.name for c in models]):
            assert len(names) == len(set(names))
        for case in operators:
            assert case.bytes(2) > 0 < case.flops
            assert case.torch is not None
        assert {c.operator for c in operators} == set(cases.WHY)


def test_the_cudnn_lstm_is_a_contender_of_a_gpu() -> None:
    case = recurrent_case("lstm", 2, 3, 4, 5)
    with kernels.target("nvidia-h200"):
        made = contenders.operator_contenders(case, "float32", [])
    assert {"xla", "cudnn", "xla +WHILE", "xla unroll 8"} <= set(made)


SMALL = [
    cases.pool_case("small", 2, 7, 8, 3, 2, 1),
    cases.norm_case("small", 2, 4, 8),
    cases.norm_case("small", 2, 4, 8, residual=True),
    cases.response_case("small", 2, 4, 8),
    cases.conv_case("small", 2, 5, 4, 6),
    cases.linear_case("small", 8, 6, 5, "relu", backward=True),
    cases.mlp_case("small", 8, (5, 6, 7), "leaky_relu", None),
    cases.lenet5_case(2),
    cases.loss_case("small", 8, 9),
    recurrent_case("rnn", 2, 4, 5, 6, backward=True),
    recurrent_case("gru", 2, 4, 5, 6, layers=2, backward=True),
    recurrent_case("lstm", 2, 4, 5, 6, layers=2, bidirectional=True, backward=True),
]


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_peers_of_operators_do_the_same_work(case: Case) -> None:
    reference = contenders.operator_reference(case)
    inputs = case.draw(np.random.default_rng(0))
    made = contenders.operator_contenders(case, "float32", ["torch", "flax"])
    assert set(made) == {"xla", "torch", *(["flax"] if case.flax else [])}
    for name in set(made) - {"xla"}:
        peer = made[name]()
        # float32 throughout on a CPU: sums of at most a few hundred products.
        assert relative_error(peer.to_numpy(peer.call(*peer.prepare(inputs))), reference) < 2e-5, name


TWINS = [
    ModelCase("lenet5", (2, 32, 32, 1), True),
    ModelCase(BLOCK, (1, 8, 8, 3), False),
    ModelCase("resnet18", (1, 32, 32, 3), False),
    ModelCase("bilstm_classifier", (2, 5, 32), False),
    ModelCase("gru_lm", (2, 5), True),
]


@pytest.mark.parametrize("case", TWINS, ids=lambda case: case.name)
def test_twins_of_models_do_the_same_work(case: ModelCase) -> None:
    weights = programs.Weights(case)
    assert case.has_twin
    reference = contenders.model_reference(weights)
    twin = contenders.model_contenders(weights, "float32", ["torch"])["torch"]()
    found = twin.to_numpy(twin.call(*twin.prepare(case.draw(np.random.default_rng(0)))))
    # Losses and norms of gradients, or logits, after tens of layers in float32.
    assert relative_error(found, reference) < 1e-4
    assert (case.flops() or 0) > 0 < weights.bytes(4)


@pytest.mark.parametrize("shape", [(2, 32, 32, 1), (2, 64, 64, 3)], ids=["lenet5", "alexnet"])
def test_logits_depend_on_the_images(shape: tuple[int, ...]) -> None:
    """Else the check of inference would pass whatever a contender computes before the last bias. Two images of noise leave
    nearly the same averages behind, so the difference is a small part of the logits; the check allows 0.01."""
    model = "lenet5" if shape[-1] == 1 else "alexnet"
    ((one, other),) = contenders.model_reference(programs.Weights(ModelCase(model, shape, False)))
    assert relative_error([one], [other]) > 0.05


def test_every_layer_of_googlenet_shows_in_its_logits() -> None:
    deviation = lambda kernel: kernel.std() * np.sqrt(np.prod(kernel.shape[:-1]) / 2)
    weights = programs.Weights(ModelCase("googlenet", (1, 32, 32, 3), False))
    convolutions = [p for path, p in nnx.iter_graph(weights.model) if isinstance(p, nnx.Param) and path[-1] == "kernel"]
    assert len(convolutions) > 57
    found = [float(deviation(kernel.get_value())) for kernel in convolutions]
    assert found == pytest.approx([1.0] * len(found), rel=1e-4)


def test_a_step_on_a_cpu_goes_on_from_its_own_weights() -> None:
    weights = programs.Weights(ModelCase("lenet5", (2, 32, 32, 1), True))
    before = weights.torch_state_dict()
    contender = contenders.model_contender(weights, "float32", "xla")
    inputs = contender.prepare(weights.case.draw(np.random.default_rng(0)))
    first, second = (contender.to_numpy(contender.call(*inputs)) for _ in range(2))
    assert second[0] < first[0]
    after = weights.torch_state_dict()
    assert all(np.array_equal(np.asarray(before[name]), np.asarray(after[name])) for name in before)
