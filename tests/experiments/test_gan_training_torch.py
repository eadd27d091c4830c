"""The whole loop of GAN training beside one written in torch, in float64: parameters and statistics after each step."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch.nn.functional import mse_loss, relu, softplus

import zoo
from experiments import data
from experiments.peers.torch_gans import generate, score, torch_dcgan, torch_mlp
from experiments.recipes import find
from experiments.training.gan_task import GanTask
from experiments.training.task import TrainState
from zoo.weights import torch_arrays

pytestmark = pytest.mark.slow

# (discriminator's of the scores of real and generated images, generator's of the latter)
LOSSES: dict[str, Any] = {
    "non_saturating": (lambda real, fake: softplus(-real).mean() + softplus(fake).mean(), lambda fake: softplus(-fake).mean()),
    "least_squares": (
        lambda real, fake: (mse_loss(real, torch.ones_like(real)) + mse_loss(fake, torch.zeros_like(fake))) / 2,
        lambda fake: mse_loss(fake, torch.ones_like(fake)) / 2,
    ),
    "hinge": (lambda real, fake: relu(1 - real).mean() + relu(1 + fake).mean(), lambda fake: -fake.mean()),
    "wasserstein_gp": (lambda real, fake: fake.mean() - real.mean(), lambda fake: -fake.mean()),
}


def channels_first(images: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(images, np.float64).transpose(0, 3, 1, 2))


class Loop:
    """Goodfellow et al. 2014, algorithm 1, with Adam; without `fresh`, one draw of latent vectors serves both steps."""

    def __init__(self, name: str, peer: torch.nn.Module, loss: str, rate: float, d_steps: int, fresh: bool):
        self.name, self.peer, self.loss, self.d_steps, self.fresh = name, peer, loss, d_steps, fresh
        parts = {part: peer[part].parameters() for part in ("generator", "discriminator")}
        self.adam = {part: torch.optim.Adam(parameters, rate, betas=(0.5, 0.999)) for part, parameters in parts.items()}

    def step(self, number: int, real: torch.Tensor, z: torch.Tensor, fresh: torch.Tensor, mix: torch.Tensor) -> list[float]:
        loss_d, loss_g = LOSSES[self.loss]
        fake = generate(self.name, self.peer, z)
        self.adam["discriminator"].zero_grad()
        value_d = loss_d(score(self.name, self.peer, real), score(self.name, self.peer, fake.detach()))
        if self.loss == "wasserstein_gp":
            between = (mix * real + (1 - mix) * fake.detach()).requires_grad_()
            (slope,) = torch.autograd.grad(score(self.name, self.peer, between).sum(), between, create_graph=True)
            value_d = value_d + 10 * (slope.flatten(1).norm(dim=1) - 1).square().mean()
        value_d.backward()
        self.adam["discriminator"].step()
        if number % self.d_steps != self.d_steps - 1:
            return [value_d.item()]
        self.adam["generator"].zero_grad()
        value_g = loss_g(score(self.name, self.peer, generate(self.name, self.peer, fresh) if self.fresh else fake))
        value_g.backward()
        self.adam["generator"].step()
        return [value_d.item(), value_g.item()]


@pytest.mark.parametrize(
    ("name", "loss", "d_steps", "fresh"),
    [
        ("gan_mlp", "non_saturating", 1, False),
        ("gan_mlp", "non_saturating", 1, True),
        ("gan_mlp", "least_squares", 2, True),
        ("gan_mlp", "hinge", 2, False),
        ("gan_mlp", "wasserstein_gp", 1, True),
        ("dcgan", "least_squares", 2, True),
    ],
)
def test_the_whole_loop_equals_torchs(name: str, loss: str, d_steps: int, fresh: bool) -> None:
    torch.manual_seed(0)
    size = 28 if name == "gan_mlp" else 32
    peer = (torch_mlp() if name == "gan_mlp" else torch_dcgan(size, 4, 1)).double()
    options = "" if name == "gan_mlp" else "image_size=32,generator_width=4,discriminator_width=4,"
    recipe = dataclasses.replace(
        find(name),
        learning_rate=2e-3,
        ema=None,
        model_options=f"{options}in_channels=1,param_dtype=float64",
        data_options=f"size={size},shift=0",
        task_options=f"loss={loss},d_steps={d_steps},fresh_latents={fresh}",
    )
    object.__setattr__(recipe, "precision", "float64")  # which no command line gives; equality is to be seen
    loop = Loop(name, peer, loss, recipe.learning_rate, d_steps, fresh)
    with jax.enable_x64(True):
        dataset = data.load("digits", **recipe.options("data"))
        task = GanTask(recipe, dataset, 12, 22)
        model = nnx.eval_shape(lambda: zoo.training_view(task.build()))  # the values are torch's
        zoo.load_weights(model, peer.state_dict())
        _, params, rest = zoo.split(model)
        optimizer = tuple(task.optimizer.init(params[part]) for part in ("generator", "discriminator"))
        state = TrainState(jnp.int32(0), params, rest, optimizer, None)
        step, batches = jax.jit(task.train_step), dataset.training_batches(8, 0)
        for number in range(4):
            (batch,) = task.prepare(state, [batches[number]])
            z = torch.from_numpy(np.array(batch["latent"]))
            other = torch.from_numpy(np.array(batch["fresh_latent"])) if fresh else z
            assert torch.equal(z, other) is not fresh
            mix = torch.from_numpy(np.array(jax.random.uniform(batch["keys"][2], (8, 1, 1, 1), batch["image"].dtype))).double()
            figures = loop.step(number, channels_first(batch["image"]), z, other, mix)
            state, metrics = step(state, batch)
            said = dict(zip(task.metric_names, np.asarray(metrics), strict=True))
            # Figures are float32.
            np.testing.assert_allclose([said["discriminator_loss"], said["generator_loss"]][: len(figures)], figures, rtol=1e-5)
            ours = torch_arrays(nnx.merge(task.train_graph, state.params, state.rest, copy=True))
            for key, value in peer.state_dict().items():
                # Adam divides by the root of a mean square: where a gradient is nearly zero, its rounding error becomes a part
                # of a step of 2e-3.
                np.testing.assert_allclose(ours[key], value, rtol=1e-6, atol=1e-8, err_msg=f"{key} after step {number}")
