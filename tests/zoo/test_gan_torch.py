"""The GANs beside torch: pytorch/examples' DCGAN layout and the plain MLP, forward, backward, weights both ways."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import zoo
from experiments.peers.torch_gans import generate, score, torch_dcgan, torch_mlp


@pytest.mark.parametrize(("name", "size", "channels"), [("gan_mlp", 28, 1), ("dcgan", 32, 1), ("dcgan", 64, 3)])
def test_both_networks_agree_with_torch(name: str, size: int, channels: int, rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    width = 8
    peer = torch_mlp() if name == "gan_mlp" else torch_dcgan(size, width, channels)
    options = {} if name == "gan_mlp" else {"generator_width": width, "discriminator_width": width, "image_size": size}
    state = {key: value.clone() for key, value in peer.state_dict().items()}
    with jax.enable_x64(True):
        model = zoo.create_model(name, in_channels=channels, param_dtype=jnp.float64, weights=state, **options)
        back = zoo.to_torch_state_dict(model)
        assert set(back) == set(state)
        for key, value in state.items():
            np.testing.assert_array_equal(np.asarray(back[key]), value.numpy())
        peer.double()
        z = rng.standard_normal((5, 100))
        zt = torch.from_numpy(z).requires_grad_()
        images_t = generate(name, peer, zt)
        scores_t = score(name, peer, images_t)
        weights = rng.standard_normal(5)
        (scores_t * torch.from_numpy(weights)).sum().backward()

        # A copy trains, so that its running statistics stay apart from those of the forward pass above.
        graph, split_params, rest = zoo.split(zoo.training_view(model))
        images = nnx.merge(graph, split_params, rest, copy=True).generator(jnp.asarray(z))
        # float64 sums in another order, through up to ten layers.
        np.testing.assert_allclose(images, images_t.detach().permute(0, 2, 3, 1), rtol=1e-9, atol=1e-10)

        def weighed(params: nnx.State, z: jax.Array) -> jax.Array:
            whole = nnx.merge(graph, params, rest, copy=True)
            return (whole.discriminator(whole.generator(z)) * weights).sum()

        value, (gradient, gradient_z) = jax.jit(jax.value_and_grad(weighed, (0, 1)))(split_params, jnp.asarray(z))
        np.testing.assert_allclose(value, float((scores_t.detach() * torch.from_numpy(weights)).sum()), rtol=1e-8)
        np.testing.assert_allclose(gradient_z, zt.grad, rtol=1e-7, atol=1e-10)
        nnx.update(model, gradient)  # gradients travel to torch's layout like weights
        ours = zoo.to_torch_state_dict(model)
        for key, parameter in peer.named_parameters():
            np.testing.assert_allclose(np.asarray(ours[key]), parameter.grad, rtol=1e-7, atol=1e-10, err_msg=key)
