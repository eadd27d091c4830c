"""The GANs' networks and their layers, against NumPy and plain definitions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from zoo.layers.conv import Conv
from zoo.layers.conv_transpose import ConvTranspose
from zoo.layers.linear import Linear
from zoo.layers.spectral_norm import SpectralNorm


@pytest.mark.parametrize("name", ["gan_mlp", "dcgan"])
def test_sizes_are_as_registered(name: str) -> None:
    model, info = nnx.eval_shape(lambda: zoo.create_model(name)), zoo.model_info(name)
    assert zoo.count_params(model) == info.params
    assert zoo.count_macs(model, info.input_shape) == info.macs


def test_dcgan_has_the_parameters_of_torchs_example() -> None:
    model = nnx.eval_shape(lambda: zoo.create_model("dcgan"))
    assert (zoo.count_params(model.generator), zoo.count_params(model.discriminator)) == (3_576_704, 2_765_568)


def test_a_form_that_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="form: 'fast' given"):
        ConvTranspose(1, 1, 4, form="fast", rngs=nnx.Rngs(0))


def test_spectral_norm_divides_by_the_largest_singular_value() -> None:
    for layer, x in (
        (Linear(7, 5, use_bias=False, rngs=nnx.Rngs(0)), jnp.eye(7)),
        (Conv(3, 4, 3, use_bias=False, rngs=nnx.Rngs(1)), jax.random.normal(jax.random.key(0), (2, 5, 5, 3))),
    ):
        wrapped = SpectralNorm(layer, rngs=nnx.Rngs(2))
        call = nnx.jit(lambda wrapped, x: wrapped(x))
        for _ in range(300):
            y = call(wrapped, x)
        kernel = np.asarray(layer.kernel[...], np.float64)
        sigma = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0]
        # After 300 power iterations the estimate has float32's precision.
        np.testing.assert_allclose(y, np.asarray(layer(x)) / sigma, rtol=1e-4, atol=1e-5)
        u = wrapped.u[...]
        zoo.evaluation_view(wrapped)(x)
        assert (wrapped.u[...] == u).all()


def test_conditional_networks_use_the_label() -> None:
    for name, options in (("gan_mlp", {}), ("dcgan", {"image_size": 32, "in_channels": 1})):
        model = zoo.create_model(name, num_classes=4, **options)
        z = jax.random.normal(jax.random.key(0), (3, 100))
        one, two = (model.generator(z, jnp.full(3, label)) for label in (0, 1))
        assert not jnp.allclose(one, two)
        assert not jnp.allclose(model.discriminator(one, jnp.zeros(3, int)), model.discriminator(one, jnp.ones(3, int)))
        with pytest.raises(ValueError, match="labels: none given"):
            model(z)
    with pytest.raises(ValueError, match="labels: given, and the network was built without"):
        zoo.create_model("gan_mlp")(z, jnp.zeros(3, int))


def test_bad_input_is_named() -> None:
    model = zoo.create_model("dcgan", image_size=32, in_channels=1)
    with pytest.raises(ValueError, match=r"z: shape \(2, 99\) given, latent vectors \[batch, 100\]"):
        model(jnp.ones((2, 99)))
    with pytest.raises(ValueError, match=r"images: shape .* given, \[batch, 32, 32"):
        model.discriminator(jnp.ones((2, 64, 64, 1)))
    with pytest.raises(ValueError, match="image_size: 48 given, a power of two"):
        zoo.create_model("dcgan", image_size=48)
    with pytest.raises(ValueError, match="latent_size: 0 given"):
        zoo.create_model("gan_mlp", latent_size=0)


def test_features_and_dtype() -> None:
    model = zoo.create_model("dcgan", image_size=32, in_channels=1, dtype=jnp.bfloat16)
    stages = zoo.features(model, jnp.ones((2, 100)))
    assert {name: value.shape[1:] for name, value in stages.items()} == {
        "images": (32, 32, 1), "stage1": (16, 16, 64), "stage2": (8, 8, 128), "stage3": (4, 4, 256),
    }  # fmt: skip
    assert stages["images"].dtype == jnp.bfloat16
