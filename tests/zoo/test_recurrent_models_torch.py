"""Language models, classifiers and tagger: shapes, counts, torch twins, carried state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import zoo

NAMES = [name for name in zoo.list_models() if zoo.model_info(name).family == "recurrent"]


def example(info, batch):
    rng = np.random.default_rng(0)
    if len(info.input_shape) == 1:
        return jnp.asarray(rng.integers(0, 98, (batch, *info.input_shape)))
    return jnp.asarray(rng.standard_normal((batch, *info.input_shape), dtype=np.float32))


@pytest.mark.parametrize("name", NAMES)
def test_counts_shapes_and_new_classifier(name):
    info = zoo.model_info(name)
    model = zoo.create_model(name)
    x = example(info, 2)
    assert zoo.count_params(model) == info.params
    assert zoo.count_macs(model, info.input_shape, x.dtype) == info.macs
    steps = () if name.endswith("classifier") else info.input_shape
    assert jax.eval_shape(lambda x: model(x), x).shape == (2, *steps, info.num_classes)
    model.reset_classifier(3, rngs=nnx.Rngs(1))
    assert jax.eval_shape(lambda x: model(x), x).shape == (2, *steps, 3)


class TorchTagger(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(98, 8)
        self.recurrent = torch.nn.LSTM(8, 16, 2, bidirectional=True, batch_first=True)
        self.head = torch.nn.Linear(32, 5)

    def forward(self, x):
        return self.head(self.recurrent(self.embedding(x))[0])


def test_a_torch_tagger_loads_and_agrees():
    twin = TorchTagger()
    model = zoo.create_model("bilstm_tagger", num_classes=5, embedding_size=8, hidden_size=16, num_layers=2)
    zoo.load_weights(model, twin.state_dict())
    tokens = np.random.default_rng(0).integers(0, 98, (3, 7))
    # float32 sums of at most 32 terms in another order.
    np.testing.assert_allclose(model(tokens), twin(torch.tensor(tokens)).detach().numpy(), rtol=0, atol=1e-5)
    for name, tensor in twin.state_dict().items():
        assert torch.equal(zoo.to_torch_state_dict(model)[name], tensor), name


@pytest.mark.parametrize("name", ["rnn_lm", "lstm_lm", "gru_lm"])
def test_a_text_in_pieces_and_step_by_step(name):
    model = zoo.create_model(name, num_classes=11, embedding_size=4, hidden_size=8)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 11, (2, 6)))
    whole, end = model(tokens, return_state=True)
    first, state = model(tokens[:, :4], return_state=True)
    second, state = model(tokens[:, 4:], state, return_state=True)
    # The same arithmetic in programs of other lengths.
    np.testing.assert_allclose(jnp.concatenate([first, second], 1), whole, rtol=0, atol=1e-5)
    state, steps = None, []
    for t in range(6):
        logits, state = model.step(tokens[:, t], state)
        steps.append(logits)
    np.testing.assert_allclose(jnp.stack(steps, 1), whole, rtol=0, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), state, end)


@pytest.mark.parametrize("name", ["lstm_classifier", "bilstm_classifier"])
def test_padding_changes_no_class(name):
    model = zoo.create_model(name, in_channels=4, hidden_size=8)
    x = np.random.default_rng(0).standard_normal((1, 5, 4), dtype=np.float32)
    padded = np.concatenate([x, np.full((1, 3, 4), 7, np.float32)], 1)
    np.testing.assert_allclose(model(padded, [5]), model(x), rtol=0, atol=1e-6)


def test_bad_tokens():
    model = zoo.create_model("lstm_lm", hidden_size=4)
    with pytest.raises(ValueError, match=r"float32 of shape \(2, 3\) given, integer token ids"):
        model(jnp.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"shape \(3,\) given, integer token ids"):
        model(jnp.zeros(3, int))
