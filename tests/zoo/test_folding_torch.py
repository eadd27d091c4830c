"""A folded pair beside torch's own folding."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch.nn.utils.fusion import fuse_conv_bn_eval

import zoo
from zoo.layers.conv import Conv
from zoo.layers.conv_transpose import ConvTranspose
from zoo.layers.norm import BatchNormAct


class Pair(nnx.Module):
    def __init__(self, convolution: nnx.Module, norm: BatchNormAct):
        self.conv, self.bn = convolution, norm

    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        return [("conv", "bn")]

    def __call__(self, x: Any) -> Any:
        return self.bn(self.conv(x))  # type: ignore[operator]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("transposed", [False, True])
def test_beside_torchs_folding(bias: bool, transposed: bool, rng: np.random.Generator) -> None:
    norm = BatchNormAct(6, activation=None, epsilon=1e-3, rngs=nnx.Rngs(0))
    peer: Any
    layer: Any
    if transposed:
        layer = ConvTranspose(4, 6, 3, stride=2, padding=1, use_bias=bias, rngs=nnx.Rngs(0))
        peer = torch.nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, bias=bias)
    else:
        layer = Conv(4, 6, 3, groups=2, dilation=2, use_bias=bias, rngs=nnx.Rngs(0))
        peer = torch.nn.Conv2d(4, 6, 3, groups=2, dilation=2, bias=bias)
    model, peers = Pair(layer, norm), torch.nn.ModuleDict({"conv": peer, "bn": torch.nn.BatchNorm2d(6, eps=1e-3)}).eval()
    state = {
        name: torch.tensor(rng.uniform(0.2, 2, value.shape) if name == "bn.running_var" else rng.normal(size=value.shape))
        for name, value in peers.state_dict().items()
    }
    peers.load_state_dict(state)
    zoo.load_weights(model, peers.state_dict())
    folded: Any = zoo.fold_batch_norm(model)
    with torch.no_grad():
        fused = fuse_conv_bn_eval(peers["conv"], peers["bn"], transpose=transposed)
        x = rng.normal(size=(2, 9, 8, 4)).astype(np.float32)
        expected = fused(torch.tensor(x.transpose(0, 3, 1, 2))).numpy().transpose(0, 2, 3, 1)
    ours = zoo.to_torch_state_dict(folded)
    assert ours.keys() == {"conv.weight", "conv.bias"}
    # The same few operations in float32, a reciprocal square root once and a division by a root here.
    for name, value in fused.state_dict().items():
        np.testing.assert_allclose(ours[f"conv.{name}"], value.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(folded(jnp.asarray(x)), expected, rtol=1e-5, atol=1e-5)  # sums in another order
