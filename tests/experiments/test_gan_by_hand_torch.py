"""The loop of docs/gan.md beside the same loop in torch, with its own cross-entropy and Adam, in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import zoo
from experiments.examples import gan_by_hand
from experiments.peers.torch_gans import generate, score, torch_mlp

BATCH, STEPS, RATE = 4, 4, 2e-3


def in_torch(peer: torch.nn.ModuleDict, batches: np.ndarray, latents: np.ndarray, d_steps: int) -> list[tuple[float, float]]:
    entropy, losses, drawn = torch.nn.BCEWithLogitsLoss(), [], iter(torch.from_numpy(latents))
    adam = lambda part: torch.optim.Adam(peer[part].parameters(), RATE, betas=(0.5, 0.999))
    g_adam, d_adam = adam("generator"), adam("discriminator")
    for number, images in enumerate(torch.from_numpy(batches.transpose(0, 1, 4, 2, 3))):
        fake = generate("gan_mlp", peer, next(drawn)).detach()
        d_adam.zero_grad()
        scores = score("gan_mlp", peer, images), score("gan_mlp", peer, fake)
        d_loss = entropy(scores[0], torch.ones_like(scores[0])) + entropy(scores[1], torch.zeros_like(scores[1]))
        d_loss.backward()
        d_adam.step()
        if number % d_steps == d_steps - 1:
            g_adam.zero_grad()
            scores_of_fake = score("gan_mlp", peer, generate("gan_mlp", peer, next(drawn)))
            g_loss = entropy(scores_of_fake, torch.ones_like(scores_of_fake))
            g_loss.backward()
            g_adam.step()
            losses.append((d_loss.item(), g_loss.item()))
    return losses


@pytest.mark.parametrize("d_steps", [1, 2])
def test_the_loop_equals_torchs(d_steps: int, rng: np.random.Generator) -> None:
    torch.manual_seed(int(rng.integers(1000)))
    peer = torch_mlp().double()
    batches = np.tanh(rng.standard_normal((STEPS, BATCH, 28, 28, 1)))
    latents = rng.standard_normal((2 * STEPS, BATCH, 100))
    with jax.enable_x64(True):
        model = zoo.create_model("gan_mlp", in_channels=1, dtype=jnp.float64, param_dtype=jnp.float64, rngs=0)
        zoo.load_weights(model, peer.state_dict())
        g, d, losses = gan_by_hand.train(model, map(jnp.asarray, batches), map(jnp.asarray, latents), d_steps, RATE)
        expected = in_torch(peer, batches, latents, d_steps)
        np.testing.assert_allclose(losses, expected, rtol=1e-6)
        for part, params in (("generator", g), ("discriminator", d)):
            for layer in ("fc1", "fc2"):
                # Adam divides by the root of a mean square: a gradient's rounding error near zero becomes a part of a step.
                ours = {"weight": np.asarray(params[layer]["kernel"]).T, "bias": np.asarray(params[layer]["bias"])}
                for name, value in ours.items():
                    theirs = getattr(peer[part][layer], name).detach().numpy()
                    np.testing.assert_allclose(value, theirs, rtol=1e-6, atol=1e-7, err_msg=f"{part} {layer} {name}")


def test_cross_entropy_is_a_softplus(rng: np.random.Generator) -> None:
    scores = 200 * rng.standard_normal(100)
    entropy = torch.nn.BCEWithLogitsLoss(reduction="none")
    with jax.enable_x64(True):
        for label in (0, 1):
            expected = entropy(torch.from_numpy(scores), torch.full((100,), float(label), dtype=torch.float64))
            # torch adds terms of the size of a score, whose rounding is absolute.
            np.testing.assert_allclose(gan_by_hand.softplus((1 - 2 * label) * scores), expected, rtol=1e-9, atol=1e-12)
    with np.errstate(over="ignore", divide="ignore"):  # as the page says of a sigmoid and a logarithm
        naive = -np.log(1 / (1 + np.exp(np.float32([88, 89]))))
    assert np.isfinite(naive).tolist() == [True, False]


def test_the_example_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["gan_by_hand", "--steps", "4", "--d-steps", "2"])
    gan_by_hand.main()
    assert "in the end" in capsys.readouterr().out
