"""What is compared: operators at shapes that the zoo's models give them, each with a floor and a torch peer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kernels

Arrays = list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Case:
    """One operator at one shape, forward or forward and backward.

    Attributes:
      name: operator, where the shape comes from, and the pass.
      operator: its public name in kernels/.
      inputs: draws the inputs, float32 (cast to the case's dtype later) or integer.
      call: the work on JAX arrays; the implementation is chosen around it.
      bytes, flops: the least that any version must move through memory, with `itemsize` bytes a value, and compute.
      torch: given torch.nn.functional, the same work on torch tensors (images as [batch, channels, height, width]); or None.
    """

    name: str
    operator: str
    inputs: Callable[[np.random.Generator], Arrays]
    call: Callable[..., Any]
    bytes: Callable[[int], float]
    flops: float = 0.0
    torch: Callable[..., Any] | None = None


def with_backward(fn: Callable[..., Any], argnums: tuple[int, ...]) -> Callable[..., Any]:
    """fn's output and the gradients of its sum weighted by a fixed pattern, as one function."""

    def both(*args: Any) -> Any:
        def weighted(*chosen: Any) -> tuple[jax.Array, jax.Array]:
            full = list(args)
            for index, value in zip(argnums, chosen, strict=True):
                full[index] = value
            y = fn(*full)
            return (y.astype(jnp.float32) * pattern(y.shape)).sum(), y

        (_, y), gradients = jax.value_and_grad(weighted, tuple(range(len(argnums))), has_aux=True)(
            *(args[index] for index in argnums)
        )
        return y, *gradients

    return both


def pattern(shape: tuple[int, ...]) -> jax.Array:
    """Weights that differ from channel to channel, so that no gradient is constant."""
    return jnp.cos(jnp.arange(shape[-1], dtype=jnp.float32))


def torch_with_backward(fn: Callable[..., Any], argnums: tuple[int, ...], channel_axis: int) -> Callable[..., Any]:
    """The same with torch tensors; `channel_axis` is where the pattern lies."""

    def both(*args: Any) -> Any:
        import torch

        leaves = [a.detach().requires_grad_(i in argnums) for i, a in enumerate(args)]
        y = fn(*leaves)
        weights = torch.cos(torch.arange(y.shape[channel_axis], dtype=torch.float32, device=y.device))
        weights = weights.reshape([-1 if axis == channel_axis % y.dim() else 1 for axis in range(y.dim())])
        gradients = torch.autograd.grad((y.float() * weights).sum(), [leaves[i] for i in argnums])
        return y.detach(), *gradients

    return both


def normal(*shapes: tuple[int, ...]) -> Callable[[np.random.Generator], Arrays]:
    return lambda rng: [rng.standard_normal(shape, np.float32) for shape in shapes]


def _pool_case(where: str, batch: int, size: int, channels: int, window: int, stride: int) -> Case:
    values = batch * size * size * channels
    out = batch * ((size - window) // stride + 1) ** 2 * channels
    return Case(
        f"max_pool {window}/{stride} {where}, forward + backward",
        "max_pool",
        # Rectified, as pooling's inputs are: zeros tie everywhere.
        lambda rng: [np.maximum(rng.standard_normal((batch, size, size, channels), np.float32), 0)],
        with_backward(lambda x: kernels.max_pool(x, window, stride), (0,)),
        # x, y, the position of each maximum, dy and dx, each once.
        lambda item: item * (2 * values + 2 * out) + 2 * out,
        torch=lambda f: torch_with_backward(lambda x: f.max_pool2d(x, window, stride), (0,), 1),
    )


def _norm_case(where: str, batch: int, size: int, channels: int) -> Case:
    values = batch * size * size * channels
    call = lambda x, scale, bias: kernels.batch_norm_act(x, scale, bias, None, "relu")[0]
    peer = lambda f: lambda x, scale, bias: f.relu(f.batch_norm(x, None, None, scale, bias, training=True))
    return Case(
        f"batch_norm_act {where}, forward + backward",
        "batch_norm_act",
        normal((batch, size, size, channels), (channels,), (channels,)),
        with_backward(call, (0, 1, 2)),
        lambda item: item * 5 * values,  # x and y; x, dy and dx: what a cache that holds a slice leaves
        torch=lambda f: torch_with_backward(peer(f), (0, 1, 2), 1),
    )


def _response_case(where: str, batch: int, size: int, channels: int) -> Case:
    values = batch * size * size * channels
    return Case(
        f"local_response_norm {where}, forward + backward",
        "local_response_norm",
        normal((batch, size, size, channels)),
        with_backward(lambda x: kernels.local_response_norm(x, 5, 1e-4, 0.75, 2.0), (0,)),
        lambda item: item * 5 * values,  # x and y; x, dy and dx
        # torch divides alpha by the size of the window.
        torch=lambda f: torch_with_backward(lambda x: f.local_response_norm(x, 5, 5e-4, 0.75, 2.0), (0,), 1),
    )


def _linear_case(where: str, rows: int, inputs: int, outputs: int, activation: str) -> Case:
    act = lambda f, y: f.relu(y) if activation == "relu" else f.leaky_relu(y, 0.2)
    return Case(
        f"linear_act {where}, forward",
        "linear_act",
        lambda rng: [
            rng.standard_normal((rows, inputs), np.float32),
            rng.standard_normal((inputs, outputs), np.float32) / inputs**0.5,
            rng.standard_normal((outputs,), np.float32),
        ],
        lambda x, w, b: kernels.linear_act(x, w, b, activation, negative_slope=0.2),
        lambda item: item * (rows * inputs + inputs * outputs + rows * outputs),
        2.0 * rows * inputs * outputs,
        torch=lambda f: lambda x, w, b: act(f, f.linear(x, w.T, b)),
    )


def _loss_case(where: str, rows: int, classes: int) -> Case:
    return Case(
        f"softmax_cross_entropy {where}, forward + backward",
        "softmax_cross_entropy",
        lambda rng: [rng.standard_normal((rows, classes), np.float32), rng.integers(0, classes, rows).astype(np.int32)],
        with_backward(lambda x, y: kernels.softmax_cross_entropy(x, y, label_smoothing=0.1), (0,)),
        lambda item: item * 3 * rows * classes,
        torch=lambda f: torch_with_backward(
            lambda x, y: f.cross_entropy(x, y.long(), label_smoothing=0.1, reduction="none"), (0,), 0
        ),
    )


def operator_cases(quick: bool, platform: str) -> list[Case]:
    """Real shapes of AlexNet, ResNet-50, GoogLeNet, VGG and the GAN; the batch is what a CPU can do in the time, or a GPU's."""
    scale = 1 if platform == "cuda" else 32
    batch = lambda full: max(2, full // scale // (2 if quick else 1))
    cases = [
        _pool_case("AlexNet pool1", batch(512), 55, 64, 3, 2),
        _pool_case("VGG pool1", batch(128), 224, 64, 2, 2),
        _response_case("AlexNet conv1", batch(512), 55, 96),
        _norm_case("ResNet-50 stage 2", batch(256), 28, 128),
        _norm_case("ResNet-50 stage 3", batch(256), 14, 256),
        _linear_case("AlexNet fc7", batch(1024), 4096, 4096, "relu"),
        _linear_case("GAN discriminator", 4096 if platform == "cuda" else 1024, 784, 256, "leaky_relu"),
        _loss_case("ImageNet classes", batch(4096) * 4, 1000),
    ]
    return cases[:: 2 if quick else 1]
