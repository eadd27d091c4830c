"""What is compared: operators at shapes that the zoo's models give them, each with a floor and peers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import kernels
from experiments.comparison.case import Array, Case, TorchPeer, images_first, images_last
from experiments.comparison.recurrent_cases import recurrent_cases
from kernels.runtime import activations

# Why the hand-written kernel of an operator can win, and what it cannot win: one reason each, shown beside the figures.
WHY = {
    "max_pool": "XLA finds each maximum again in the backward pass, through arrays of indices and a scatter; the kernel keeps "
    "one byte per window and gathers",
    "local_response_norm": "JAX's gradient keeps arrays of powers and sums; the kernel keeps x and computes them again",
    "batch_norm_act": "XLA reads x from device memory once per pass; the kernel reads a slice of channels again from the L2 "
    "cache, where one fits",
    "linear_act": "both are one matrix product with its bias and activation fused; cuBLAS is hard to beat",
    "mlp": "one launch, and the hidden layer never reaches device memory",
    "lenet5": "one launch for the network, and its feature maps never reach device memory",
    "softmax_cross_entropy": "the control: XLA's fusions are within a third of the fewest passes",
    "conv": "the control: no hand-written kernel, cuDNN's are better",
    "rnn": "XLA launches kernels for every step; the persistent kernel keeps the weights on the chip for the whole sequence",
    "lstm": "XLA launches kernels for every step; the persistent kernel keeps the weights on the chip for the whole sequence",
    "gru": "XLA launches kernels for every step; the persistent kernel keeps the weights on the chip for the whole sequence",
}


# -- operators on images --------------------------------------------------------------------------------------------------


def pool_case(where: str, batch: int, size: int, channels: int, window: int, stride: int, padding: int = 0) -> Case:
    values = batch * size * size * channels
    out = batch * ((size + 2 * padding - window) // stride + 1) ** 2 * channels
    pads = ((padding, padding), (padding, padding))
    return Case(
        "max_pool",
        f"{window}/{stride} {where} {batch}x{size}x{size}x{channels}",
        (Array((batch, size, size, channels), rectified=True),),
        lambda x: kernels.max_pool(x, window, stride, pads),
        # x, y, the position of each maximum (a byte), dy and dx, each once.
        lambda item: item * (2 * values + 2 * out) + 2 * out,
        window * window * out + values,
        (0,),
        TorchPeer(lambda f: lambda x: f.max_pool2d(x, window, stride, padding)),
        lambda x: _linen().max_pool(x, (window, window), (stride, stride), pads),
    )


def norm_case(where: str, batch: int, size: int, channels: int, residual: bool = False) -> Case:
    x = Array((batch, size, size, channels))
    values = math.prod(x.shape)
    channel = Array((channels,), float32=True)

    def forward(x: jax.Array, scale: jax.Array, bias: jax.Array, *other: jax.Array) -> jax.Array:
        return kernels.batch_norm_act(x, scale, bias, other[0] if other else None, "relu")[0]

    def torch_forward(f: Any) -> Callable[..., Any]:
        norm = lambda x, scale, bias: f.batch_norm(x, None, None, scale, bias, training=True)
        return lambda x, scale, bias, *other: f.relu(norm(x, scale, bias) + other[0] if other else norm(x, scale, bias))

    def flax_forward(x: jax.Array, scale: jax.Array, bias: jax.Array, *other: jax.Array) -> jax.Array:
        norm = _linen().BatchNorm(use_running_average=False, epsilon=1e-5, dtype=x.dtype)
        statistics = {"mean": jnp.zeros(channels), "var": jnp.ones(channels)}
        variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": statistics}
        y, _ = norm.apply(variables, x, mutable=["batch_stats"])
        return jax.nn.relu(sum(other, y))

    return Case(
        "batch_norm_act",
        f"{where} {batch}x{size}x{size}x{channels}{' + residual' if residual else ''}",
        (x, channel, channel, *([x] if residual else [])),
        forward,
        # Forward x and y, backward x, dy and dx: what remains where a cache holds a slice. The residual and its gradient.
        lambda item: item * (7 if residual else 5) * values,
        16 * values,
        (0, 1, 2, 3) if residual else (0, 1, 2),
        TorchPeer(torch_forward),
        flax_forward,
    )


def response_case(where: str, batch: int, size: int, channels: int) -> Case:
    values = batch * size * size * channels
    return Case(
        "local_response_norm",
        f"{where} {batch}x{size}x{size}x{channels}",
        (Array((batch, size, size, channels)),),
        lambda x: kernels.local_response_norm(x, 5, 1e-4, 0.75, 2.0),
        lambda item: item * 5 * values,  # x and y; x, dy and dx
        30 * values,
        (0,),
        # torch divides alpha by the size of the window.
        TorchPeer(lambda f: lambda x: f.local_response_norm(x, 5, 5e-4, 0.75, 2.0)),
    )


def conv_case(where: str, batch: int, size: int, channels: int, features: int) -> Case:
    x, w = (batch, size, size, channels), (3, 3, channels, features)
    values = batch * size * size
    linen = lambda x, w: _linen().Conv(features, (3, 3), use_bias=False, dtype=x.dtype).apply({"params": {"kernel": w}}, x)
    return Case(
        "conv",
        f"3x3 {where} {batch}x{size}x{size}x{channels}",
        (Array(x), Array(w, scale=(9 * channels) ** -0.5)),
        lambda x, w: kernels.conv(x, w, padding="SAME"),
        lambda item: item * (3 * values * channels + 2 * values * features + 3 * math.prod(w)),
        3 * 2.0 * values * math.prod(w),
        (0, 1),
        TorchPeer(
            lambda f: lambda x, w: f.conv2d(x, w, padding=1),
            # [height, width, in, out] to torch's [out, in, height, width], in memory as torch's channels_last has it.
            lambda t: [
                t[0].permute(0, 3, 1, 2),
                t[1].permute(3, 0, 1, 2).contiguous().permute(0, 3, 1, 2),
                *images_first(t[2:]),
            ],
            lambda a: [*images_last(a[:2]), a[2].transpose(2, 3, 1, 0)],
        ),
        linen,
    )


# -- dense operators ------------------------------------------------------------------------------------------------------


def _activate(f: Any, activation: str | None, y: Any) -> Any:
    """torch's activation of the name that kernels/ uses."""
    named = {"relu": lambda: f.relu(y), "leaky_relu": lambda: f.leaky_relu(y, 0.2), "tanh": lambda: f.tanh(y), None: lambda: y}
    return named[activation]()


def _dense(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
    return _linen().Dense(w.shape[1], dtype=x.dtype).apply({"params": {"kernel": w, "bias": b}}, x)


def linear_case(where: str, rows: int, inputs: int, outputs: int, activation: str, backward: bool = False) -> Case:
    once = rows * inputs + inputs * outputs + rows * outputs
    again = rows * outputs + 2 * rows * inputs + 2 * inputs * outputs  # dy, x and dx, w and dw
    return Case(
        "linear_act",
        f"{where} {rows}x{inputs} to {outputs}",
        (Array((rows, inputs)), Array((inputs, outputs), scale=inputs**-0.5), Array((outputs,))),
        lambda x, w, b: kernels.linear_act(x, w, b, activation, negative_slope=0.2),
        lambda item: item * (once + (again if backward else 0)),
        (3 if backward else 1) * 2.0 * rows * inputs * outputs,
        (0, 1, 2) if backward else (),
        TorchPeer(lambda f: lambda x, w, b: _activate(f, activation, f.linear(x, w.T, b))),
        lambda x, w, b: activations.apply(activation, _dense(x, w, b), 0.2),
    )


def mlp_case(where: str, rows: int, widths: tuple[int, int, int], activation: str, final: str | None) -> Case:
    first, hidden, last = widths
    arrays = (Array((rows, first)), Array((first, hidden), scale=first**-0.5), Array((hidden, last), scale=hidden**-0.5))

    def torch_forward(f: Any) -> Callable[..., Any]:
        layer = lambda act, x, w, b: _activate(f, act, f.linear(x, w.T, b))
        return lambda x, w, v, b, c: layer(final, layer(activation, x, w, b), v, c)

    act = lambda name, y: activations.apply(name, y, 0.2)
    return Case(
        "mlp",
        f"{where} {rows}x{first} to {hidden} to {last}",
        (*arrays, Array((hidden,)), Array((last,))),
        lambda x, w, v, b, c: kernels.mlp(x, [w, v], [b, c], activation, final),
        lambda item: item * (rows * (first + last) + first * hidden + hidden * last),
        2.0 * rows * hidden * (first + last),
        (),
        TorchPeer(torch_forward),
        lambda x, w, v, b, c: act(final, _dense(act(activation, _dense(x, w, b)), v, c)),
    )


def lenet5_case(batch: int) -> Case:
    shapes = ((5, 5, 1, 6), (5, 5, 6, 16), (400, 120), (120, 84), (84, 10))
    weights = [Array(s, scale=math.prod(s[:-1]) ** -0.5) for s in shapes]

    def torch_forward(f: Any) -> Callable[..., Any]:
        def network(x: Any, *wb: Any) -> Any:
            for w, b in zip(wb[:2], wb[5:7], strict=True):
                x = f.max_pool2d(f.relu(f.conv2d(x, w, b)), 2)
            x = x.permute(0, 2, 3, 1).flatten(1)
            for w, b in zip(wb[2:4], wb[7:9], strict=True):
                x = f.relu(f.linear(x, w.T, b))
            return f.linear(x, wb[4].T, wb[9])

        return network

    kernel = lambda w: w.permute(3, 2, 0, 1).contiguous()
    return Case(
        "lenet5",
        f"{batch}x32x32x1",
        (Array((batch, 32, 32, 1)), *weights, *(Array((s[-1],)) for s in shapes)),
        lambda x, *wb: kernels.lenet5(x, wb[:5], wb[5:]),
        lambda item: item * (batch * (1024 + 10) + 61_706),
        2.0 * batch * 416_520,
        (),
        TorchPeer(torch_forward, lambda t: [t[0].permute(0, 3, 1, 2), kernel(t[1]), kernel(t[2]), *t[3:]]),
    )


def loss_case(where: str, rows: int, classes: int) -> Case:
    cross_entropy = lambda f, x, y: f.cross_entropy(x, y.long(), label_smoothing=0.1, reduction="none")
    return Case(
        "softmax_cross_entropy",
        f"{where} {rows}x{classes}",
        (Array((rows, classes)), Array((rows,), below=classes)),
        lambda x, labels: kernels.softmax_cross_entropy(x, labels, label_smoothing=0.1),
        lambda item: item * 3 * rows * classes,  # the logits, again for the gradient, the gradient
        10 * rows * classes,
        (0,),
        TorchPeer(lambda f: lambda x, labels: cross_entropy(f, x, labels)),
    )


def _linen() -> Any:
    import flax.linen  # only where a peer is asked for

    return flax.linen


def operator_cases(quick: bool, platform: str) -> list[Case]:
    """Real shapes of the zoo's models and of the public benchmark; on a CPU with smaller batches, to save time."""
    scale = 1 if platform == "cuda" else 32
    batch = lambda full: max(2, full // scale // (2 if quick else 1))
    rows = lambda full: max(64, full // (1 if platform == "cuda" else 8))
    cases = [
        pool_case("AlexNet pool1", batch(512), 55, 64, 3, 2),
        pool_case("VGG pool1", batch(128), 224, 64, 2, 2),
        pool_case("ResNet stem", batch(256), 112, 64, 3, 2, 1),
        pool_case("GoogLeNet 3a", batch(256), 28, 192, 3, 1, 1),
        response_case("AlexNet conv1", batch(512), 55, 96),
        response_case("GoogLeNet stem", batch(256), 56, 64),
        norm_case("ResNet-50 stage 2", batch(256), 28, 128),
        norm_case("ResNet-50 stage 3", batch(256), 14, 256),
        norm_case("ResNet-50 stage 1 end", batch(256), 56, 256, residual=True),
        linear_case("AlexNet fc7", batch(1024), 4096, 4096, "relu"),
        linear_case("AlexNet fc7", batch(1024), 4096, 4096, "relu", backward=True),
        linear_case("tall", rows(65536), 128, 512, "relu"),
        mlp_case("GAN generator", rows(4096), (100, 256, 784), "relu", "tanh"),
        mlp_case("GAN discriminator", rows(4096), (784, 256, 1), "leaky_relu", None),
        lenet5_case(rows(4096)),
        loss_case("ImageNet classes", batch(4096) * 4, 1000),
        conv_case("ResNet-50 stage 2", batch(256), 28, 128, 128),
        *recurrent_cases(platform, quick),
    ]
    if not quick:
        return cases
    first = {case.operator: case for case in reversed(cases)}  # one of each operator
    return [case for case in cases if first[case.operator] is case]
